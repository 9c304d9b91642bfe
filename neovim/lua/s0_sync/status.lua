-- A component for status lines.

local client = require('s0_sync.client')
local state = require('s0_sync.state')

local M = {}

local WORD = {
  detached = 'detached',
  stopped = 'stopped',
  starting = 'starting',
  in_sync = '✓',
  syncing = '⇅',
  blocked = 'blocked',
  offline = 'offline',
  halted = 'halted',
}

--- One short text for a status, such as `s0 ✓ 3 hunks` or `s0 blocked 2 conflicts`.
---@param status s0_sync.Status
---@return string
function M.format(status)
  local parts = { 's0', WORD[status.condition] or status.condition }
  ---@param count integer
  ---@param text string
  local function add(count, text)
    if count > 0 then
      parts[#parts + 1] = ('%d %s%s'):format(count, text, count == 1 and '' or 's')
    end
  end
  add(status.conflicts, 'conflict')
  if status.held > 0 then
    parts[#parts + 1] = status.held .. ' held'
  end
  if status.incoming > 0 then
    parts[#parts + 1] = status.incoming .. ' to review'
  end
  add(status.hunks, 'hunk')
  return table.concat(parts, ' ')
end

--- The status of the current buffer, or of the directory that it is in.
---@return s0_sync.Status?
function M.get()
  local of_buffer = vim.b.s0_sync_status_dict
  if of_buffer then
    return of_buffer
  end
  local owner = client.current()
  local folder = owner and state.folders[client.folder(owner)]
  return folder and state.of_folder(folder)
end

--- For 'statusline', lualine and others: `%{v:lua.require's0_sync.status'.component()}`.
---@return string
function M.component()
  local status = M.get()
  return status and M.format(status) or ''
end

return M
