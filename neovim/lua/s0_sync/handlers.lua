-- What the sidecar says.

local buffers = require('s0_sync.buffers')
local client = require('s0_sync.client')
local config = require('s0_sync.config')
local hunks = require('s0_sync.hunks')
local state = require('s0_sync.state')

local M = {}

--- What was said about a directory since it last was well: a restart, or a second conflict, does not say it again.
local said = {} ---@type table<string, table<string, true>>

---@param root string
---@param what string It is said once under this name.
---@param message string
local function say_once(root, what, message)
  local known = said[root] or {}
  said[root] = known
  if not known[what] then
    known[what] = true
    if config.get().notify then
      client.say(message, vim.log.levels.WARN)
    end
  end
end

---@param ctx lsp.HandlerContext
---@return string root
local function root_of(ctx)
  local from = vim.lsp.get_client_by_id(ctx.client_id)
  return from and from.root_dir or ''
end

---@param folder s0_sync.FolderState
---@param root string
local function set_folder(folder, root)
  state.folders[folder.folder] = folder
  if folder.condition == 'blocked' then
    local count = state.of_folder(folder).conflicts
    local what = count == 1 and 'a conflict' or ('%d conflicts'):format(count)
    say_once(root, 'blocked', ('uploads wait for %s; see :S0Sync conflicts'):format(what))
  elseif folder.condition == 'halted' then
    say_once(root, 'halted', (folder.message or 'syncing halted') .. '; see :S0Sync status')
  elseif vim.list_contains({ 'in_sync', 'stopped', 'detached' }, folder.condition) then
    said[root] = nil
  end
  require('s0_sync.lists').update()
  state.changed()
end

--- Clients that told a state by themselves: the answer to the question at the start may be older.
local heard = {} ---@type table<integer, true>

---@type table<string, lsp.Handler>
M.lsp = {
  ['s0-sync/didChangeState'] = function(_, folder, ctx)
    heard[ctx.client_id] = true
    set_folder(folder, root_of(ctx))
  end,
  ['s0-sync/didApply'] = function(_, applied)
    buffers.applied(applied)
  end,
  ['s0-sync/didChangeHunks'] = function(_, file)
    local buf = buffers.of_uri(file.uri)
    if buf then
      hunks.set(buf, file)
    end
  end,
  ['s0-sync/didChangeContent'] = function(_, changed)
    buffers.content_changed(changed.uris)
  end,
  -- Neovim's own handler would open a prompt over whatever the user is doing.
  ['window/showMessageRequest'] = function(_, request, ctx)
    say_once(root_of(ctx), request.message, request.message .. '\nSee :S0Sync status')
    return vim.NIL
  end,
}

--- The commands that code actions of the sidecar name.
---@return table<string, fun(command: lsp.Command, ctx: table)>
function M.commands()
  local commands = {}
  for _, name in ipairs({
    'attach',
    'detach',
    'start',
    'stop',
    'resume',
    'keep',
    'revert',
    'resolve',
    'settleHeld',
    'compare',
  }) do
    commands['s0-sync.' .. name] = function(command, ctx)
      local from = vim.lsp.get_client_by_id(ctx.client_id)
      if from then
        require('s0_sync.actions').perform(from, name, (command.arguments or {})[1] or {})
      end
    end
  end
  return commands
end

--- A sidecar is there: what it knows is asked for.
---@param from vim.lsp.Client
function M.started(from)
  client.request(from, 's0-sync/state', {}, function(err, answer)
    if err then
      client.say(err, vim.log.levels.ERROR)
      return
    end
    for _, folder in ipairs(heard[from.id] and {} or answer.folders) do
      set_folder(folder, from.root_dir or '')
    end
  end)
end

--- A sidecar is gone, and what it said is no longer known.
---@param root string
function M.ended(root)
  state.folders[vim.uri_from_fname(root)] = nil
  for buf in pairs(state.hunks) do
    local name = vim.api.nvim_buf_is_loaded(buf) and vim.api.nvim_buf_get_name(buf) or ''
    if name == '' then
      state.hunks[buf] = nil
    elseif vim.startswith(vim.fs.normalize(name), root .. '/') then
      hunks.clear(buf)
    end
  end
  state.changed()
end

return M
