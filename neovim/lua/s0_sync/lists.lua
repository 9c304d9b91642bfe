-- The quickfix lists: conflicts, and what waits for review. They follow the state while they are the current list.

local client = require('s0_sync.client')
local state = require('s0_sync.state')

local M = {}

---@alias s0_sync.List 'conflicts'|'incoming'

local TITLE = { conflicts = 's0 sync: conflicts', incoming = 's0 sync: to review' }

---@param item s0_sync.Item
---@return string
local function describe(item)
  local actors = vim.tbl_map(function(actor)
    return actor.label
  end, item.actors)
  local text = ('%s by %s'):format(item.kind, table.concat(actors, ', '))
  if item.from then
    text = text .. ', from ' .. item.from
  end
  if item.hunks > 0 then
    text = ('%s, %d hunks +%d -%d'):format(text, item.hunks, item.added, item.removed)
  end
  return text
end

---@param folder s0_sync.FolderState
---@param list s0_sync.List
---@return vim.quickfix.entry[]
local function entries(folder, list)
  local items = {} ---@type vim.quickfix.entry[]
  if list == 'conflicts' then
    for _, conflict in ipairs(folder.conflicts) do
      if conflict.status == 'open' then
        items[#items + 1] = {
          filename = vim.uri_to_fname(conflict.uri),
          lnum = 1,
          text = conflict.message,
          type = 'E',
        }
      end
    end
    return items
  end
  for _, item in ipairs(folder.incoming) do
    items[#items + 1] =
      { filename = vim.uri_to_fname(item.uri), lnum = 1, text = describe(item), type = 'I' }
  end
  return items
end

--- Opens a list. An empty one is only said to be empty.
---@param list s0_sync.List
function M.open(list)
  local owner = client.current()
  local folder = owner and state.folders[client.folder(owner)]
  local items = folder and entries(folder, list) or {}
  if not folder or #items == 0 then
    client.say(list == 'conflicts' and 'no conflicts' or 'nothing to review')
    return
  end
  vim.fn.setqflist({}, ' ', {
    title = TITLE[list],
    context = { s0_sync = folder.folder },
    items = items,
  })
  vim.cmd('botright copen')
end

--- Brings the current list up to date, if it is one of ours. No window is opened or closed.
function M.update()
  local now = vim.fn.getqflist({ title = true, context = true, idx = 0 })
  local uri = type(now.context) == 'table' and now.context.s0_sync
  local folder = uri and state.folders[uri]
  if not folder then
    return
  end
  for list, title in pairs(TITLE) do
    if now.title == title then
      local items = entries(folder, list)
      vim.fn.setqflist({}, 'r', { items = items, title = title, context = now.context })
      if #items > 0 then
        vim.fn.setqflist({}, 'a', { idx = math.min(now.idx, #items) })
      end
    end
  end
end

return M
