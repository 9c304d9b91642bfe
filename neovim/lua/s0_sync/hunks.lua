-- The hunks of agents in buffers: extmarks that show them, and what is at or near the cursor.

local client = require('s0_sync.client')
local config = require('s0_sync.config')
local state = require('s0_sync.state')

local M = {}

--- Signs, highlights and virtual text.
local shown = vim.api.nvim_create_namespace('s0_sync_hunks')
--- One mark over each hunk: it moves with the text, so that a hunk is found where it is now.
local ranges = vim.api.nvim_create_namespace('s0_sync_ranges')
--- The lines that were there before, when they are asked for.
local before = vim.api.nvim_create_namespace('s0_sync_before')

--- The highlights, what they are linked to unless the user or a colour scheme set them, and what they are for.
---@type { name: string, link: string, description: string }[]
M.highlights = {
  { name = 'S0SyncAdded', link = 'Added', description = 'Sign of lines that an agent added.' },
  { name = 'S0SyncChanged', link = 'Changed', description = 'Sign of changed lines.' },
  { name = 'S0SyncDeleted', link = 'Removed', description = 'Sign of deleted lines.' },
  { name = 'S0SyncAddedLine', link = 'DiffAdd', description = 'Background of added lines.' },
  { name = 'S0SyncChangedLine', link = 'DiffChange', description = 'Background of changed lines.' },
  { name = 'S0SyncBefore', link = 'DiffDelete', description = 'Lines as they were before.' },
  { name = 'S0SyncActor', link = 'NonText', description = 'Who wrote a hunk.' },
}

local SIGN = { added = 'S0SyncAdded', changed = 'S0SyncChanged', deleted = 'S0SyncDeleted' }
local LINE = { added = 'S0SyncAddedLine', changed = 'S0SyncChangedLine' }

--- Buffers whose previous lines are shown.
local showing_before = {} ---@type table<integer, boolean?>

local function define_highlights()
  for _, highlight in ipairs(M.highlights) do
    vim.api.nvim_set_hl(0, highlight.name, { link = highlight.link, default = true })
  end
end

---@param hunk s0_sync.Hunk
---@return string
local function label(hunk)
  local names = vim.tbl_map(function(actor)
    return actor.label
  end, hunk.actors)
  local text = table.concat(names, ', ')
  if hunk.kind == 'deleted' then
    text = text .. (' deleted %d line%s'):format(#hunk.before, #hunk.before == 1 and '' or 's')
  end
  return text
end

---@param buf integer
---@param id integer
---@param hunk s0_sync.Hunk
local function draw_hunk(buf, id, hunk)
  local options = config.get()
  local last = vim.api.nvim_buf_line_count(buf) - 1
  local first = math.min(hunk.start, last)
  vim.api.nvim_buf_set_extmark(buf, ranges, first, 0, {
    id = id,
    end_row = math.min(hunk['end'], last + 1),
    end_col = 0,
    strict = false,
  })
  -- A deletion has no line of its own: it is shown on the one before which it happened.
  for row = first, math.max(first, math.min(hunk['end'] - 1, last)) do
    local sign = options.signs[hunk.kind]
    vim.api.nvim_buf_set_extmark(buf, shown, row, 0, {
      sign_text = sign ~= '' and sign or nil,
      sign_hl_group = SIGN[hunk.kind],
      line_hl_group = options.line_highlight and LINE[hunk.kind] or nil,
      priority = options.sign_priority,
      invalidate = true,
      undo_restore = false,
    })
  end
  if options.virtual_text then
    vim.api.nvim_buf_set_extmark(buf, shown, first, 0, {
      virt_text = { { '  ' .. label(hunk), 'S0SyncActor' } },
      hl_mode = 'combine',
      invalidate = true,
      undo_restore = false,
    })
  end
end

---@param buf integer
local function draw_before(buf)
  vim.api.nvim_buf_clear_namespace(buf, before, 0, -1)
  local file = state.hunks[buf]
  if not showing_before[buf] or not file then
    return
  end
  local last = vim.api.nvim_buf_line_count(buf) - 1
  for _, hunk in ipairs(file.hunks) do
    if #hunk.before > 0 then
      local lines = vim.tbl_map(function(line)
        return { { line == '' and ' ' or line, 'S0SyncBefore' } }
      end, hunk.before)
      -- Lines before the end of the text go below the last line.
      vim.api.nvim_buf_set_extmark(buf, before, math.min(hunk.start, last), 0, {
        virt_lines = lines,
        virt_lines_above = hunk.start <= last,
      })
      if hunk.start == 0 then
        -- What is above the first line is not on the screen unless the window is scrolled there.
        for _, window in ipairs(vim.fn.win_findbuf(buf)) do
          vim.api.nvim_win_call(window, function()
            if vim.fn.line('w0') == 1 then
              vim.fn.winrestview({ topfill = #lines })
            end
          end)
        end
      end
    end
  end
end

---@param buf integer
function M.clear(buf)
  state.hunks[buf] = nil
  for _, namespace in ipairs({ shown, ranges, before }) do
    vim.api.nvim_buf_clear_namespace(buf, namespace, 0, -1)
  end
end

--- Shows the hunks of a buffer in place of those that are shown. Lines are those of one version of the text: when the
--- text went on meanwhile, the sidecar is asked again.
---@param buf integer
---@param file s0_sync.FileHunks
function M.set(buf, file)
  if file.documentVersion ~= vim.lsp.util.buf_versions[buf] then
    M.ask(buf)
    return
  end
  define_highlights()
  M.clear(buf)
  state.hunks[buf] = file
  for id, hunk in ipairs(file.hunks) do
    draw_hunk(buf, id, hunk)
  end
  draw_before(buf)
  state.changed()
end

--- Which client was asked for the hunks of a buffer and has not answered; one that ended never will.
local asking = {} ---@type table<integer, integer?>

--- Asks for the hunks of a buffer. A request carries all changes of the text before it, so the answer fits.
---@param buf integer
function M.ask(buf)
  local owner = client.of_buffer(buf)
  if not owner or asking[buf] == owner.id then
    return
  end
  asking[buf] = owner.id
  client.request(owner, 's0-sync/hunks', { uri = vim.uri_from_bufnr(buf) }, function(err, file)
    asking[buf] = nil
    if not err and file and vim.api.nvim_buf_is_loaded(buf) then
      M.set(buf, file)
    end
  end)
end

--- Where a hunk is now: its first line and the one after its last, from 0; equal for a deletion.
---@param buf integer
---@param id integer
---@return integer first, integer after
local function range(buf, id)
  local mark = vim.api.nvim_buf_get_extmark_by_id(buf, ranges, id, { details = true })
  local first = mark[1] or 0
  return first, mark[3] and mark[3].end_row or first
end

--- The hunk at the cursor.
---@return s0_sync.Hunk?
function M.at_cursor()
  local buf = vim.api.nvim_get_current_buf()
  local row = vim.api.nvim_win_get_cursor(0)[1] - 1
  local file = state.hunks[buf]
  for id, hunk in ipairs(file and file.hunks or {}) do
    local first, after = range(buf, id)
    if row >= first and row < math.max(after, first + 1) then
      return hunk
    end
  end
  -- A deletion at the very end is shown on the last line.
  local hunk = file and file.hunks[#file.hunks]
  local count = vim.api.nvim_buf_line_count(buf)
  if hunk and hunk.kind == 'deleted' and hunk.start >= count and row == count - 1 then
    return hunk
  end
end

--- Puts the cursor on the next hunk, or the previous one; around the end as 'wrapscan' says.
---@param forward boolean
function M.go(forward)
  local buf = vim.api.nvim_get_current_buf()
  local row = vim.api.nvim_win_get_cursor(0)[1] - 1
  local file = state.hunks[buf]
  local rows = {} ---@type integer[]
  for id in ipairs(file and file.hunks or {}) do
    rows[id] = (range(buf, id))
  end
  if #rows == 0 then
    client.say('no hunks here')
    return
  end
  table.sort(rows)
  local target ---@type integer?
  for _, candidate in ipairs(rows) do
    if forward and candidate > row then
      target = candidate
      break
    elseif not forward and candidate < row then
      target = candidate
    end
  end
  if not target and vim.o.wrapscan then
    target = forward and rows[1] or rows[#rows]
  end
  if not target then
    client.say('no more hunks')
    return
  end
  vim.cmd.normal({ args = { "m'" }, bang = true })
  vim.api.nvim_win_set_cursor(0, { math.min(target, vim.api.nvim_buf_line_count(buf) - 1) + 1, 0 })
  if vim.o.foldopen:find('search') then
    vim.cmd.normal({ args = { 'zv' }, bang = true })
  end
end

--- Shows or hides what was there before each hunk of the current buffer.
function M.toggle_before()
  local buf = vim.api.nvim_get_current_buf()
  showing_before[buf] = not showing_before[buf] or nil
  define_highlights()
  draw_before(buf)
end

return M
