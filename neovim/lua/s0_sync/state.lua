-- What is known: the state of each folder and the hunks of each buffer, as the sidecar last said.

local M = {}

---@class s0_sync.Status What status lines are made of.
---@field root string
---@field condition s0_sync.Condition
---@field message? string
---@field uploads integer Local changes that are not in the Volume yet.
---@field downloads integer Changes of others that are not on the disk yet.
---@field conflicts integer Open ones.
---@field held integer Incoming writes that wait for you.
---@field incoming integer Files that agents wrote and nobody reviewed.
---@field hunks integer Of this buffer, and so the rest.
---@field added integer
---@field changed integer
---@field deleted integer

--- By the URI of the folder.
M.folders = {} ---@type table<string, s0_sync.FolderState>
--- By buffer.
M.hunks = {} ---@type table<integer, s0_sync.FileHunks>

---@param items any[]
---@return integer
local function open(items)
  local count = 0
  for _, conflict in ipairs(items) do
    count = count + (conflict.status == 'open' and 1 or 0)
  end
  return count
end

--- The status of a folder, without the hunks of any buffer.
---@param state s0_sync.FolderState
---@return s0_sync.Status
function M.of_folder(state)
  local pending = state.pending or { uploads = 0, downloads = 0 }
  return {
    root = state.root and vim.uri_to_fname(state.root) or vim.uri_to_fname(state.folder),
    condition = state.condition,
    message = state.message,
    uploads = pending.uploads,
    downloads = pending.downloads,
    conflicts = open(state.conflicts),
    held = #state.held,
    incoming = #state.incoming,
    hunks = 0,
    added = 0,
    changed = 0,
    deleted = 0,
  }
end

---@param state s0_sync.FolderState
---@param buf integer
---@return s0_sync.Status
local function of_buffer(state, buf)
  local status = M.of_folder(state)
  local file = M.hunks[buf]
  for _, hunk in ipairs(file and file.hunks or {}) do
    status.hunks = status.hunks + 1
    status[hunk.kind] = status[hunk.kind] + 1
  end
  return status
end

--- A steady stream of changes is told this often, in debounces.
local PATIENCE = 10

local timer = assert(vim.uv.new_timer())
local first ---@type integer?

--- Tells status lines, when nothing has changed for a while. A burst becomes one update:
---
---     changes   x x xx x
---     update                       x
---                      |---------->| debounce
function M.changed()
  local debounce = require('s0_sync.config').get().update_debounce
  local now = vim.uv.now()
  first = first or now
  local left = math.max(first + PATIENCE * debounce - now, 0)
  timer:start(
    math.min(debounce, left),
    0,
    vim.schedule_wrap(function()
      first = nil
      M.publish()
    end)
  )
end

--- Writes `b:s0_sync_status_dict` of all attached buffers and fires `User S0SyncUpdate`.
function M.publish()
  local client = require('s0_sync.client')
  for _, buf in ipairs(vim.api.nvim_list_bufs()) do
    local owner = vim.api.nvim_buf_is_loaded(buf) and client.of_buffer(buf)
    local folder = owner and M.folders[client.folder(owner)]
    if folder then
      vim.b[buf].s0_sync_status_dict = of_buffer(folder, buf)
    elseif vim.b[buf].s0_sync_status_dict then
      vim.b[buf].s0_sync_status_dict = nil
    end
  end
  vim.api.nvim_exec_autocmds('User', { pattern = 'S0SyncUpdate', modeline = false })
  vim.cmd.redrawstatus({ bang = true })
end

return M
