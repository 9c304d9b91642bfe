-- The command `:S0Sync`: one table of subcommands that drives running, completion and the help file.

local M = {}

---@class s0_sync.Subcommand
---@field name string
---@field arguments? string As the help file shows them.
---@field description string
---@field values? fun(before: string[]): string[] What can stand next, given the arguments before it.
---@field run fun(arguments: string[])

--- The ways out, as they are typed.
local WAYS = { 'keep-mine', 'take-theirs', 'keep-both', 'merge', 'mark', 'ignore', 'rename' }
local HELD_WAYS = { 'take', 'discard', 'keep-both' }

---@param word string
---@return string
local function underscored(word)
  return (word:gsub('-', '_'))
end

---@param ways string[]
---@return string[]
local function dashed(ways)
  return vim.tbl_map(function(way)
    return (way:gsub('_', '-'))
  end, ways)
end

---@return s0_sync.FolderState?
local function current_state()
  local client = require('s0_sync.client')
  local owner = client.current()
  return owner and require('s0_sync.state').folders[client.folder(owner)]
end

---@param kind 'conflicts'|'held'
---@return string[]
local function paths(kind)
  local state = current_state()
  return vim.tbl_map(function(item)
    return item.path
  end, state and state[kind] or {})
end

---@return string[]
local function agents()
  local state = current_state()
  local labels = {} ---@type table<string, true>
  for _, item in ipairs(state and state.incoming or {}) do
    for _, actor in ipairs(item.actors) do
      labels[actor.label] = true
    end
  end
  local sorted = vim.tbl_keys(labels)
  table.sort(sorted)
  return sorted
end

---@param kind 'conflicts'|'held'
---@param all string[]
---@return string[]
local function ways_here(kind, all)
  local client = require('s0_sync.client')
  local owner = client.current()
  local item = owner and require('s0_sync.actions').item_at(client.folder(owner), kind)
  return item and dashed(item.ways) or all
end

---@param before string[]
---@return string[]
local function what_to_review(before)
  if #before == 0 then
    return { 'hunk', 'file', 'all', 'agent' }
  end
  return before[1] == 'agent' and #before == 1 and agents() or {}
end

---@param verdict 'keep'|'revert'
local function reviewing(verdict)
  ---@param arguments string[]
  return function(arguments)
    local what = arguments[1] or 'hunk'
    if
      not vim.tbl_contains(what_to_review({}), what) or (what == 'agent') ~= (arguments[2] ~= nil)
    then
      M.wrong_use(verdict)
      return
    end
    local part = what --[[@as 'hunk'|'file'|'all'|'agent']]
    require('s0_sync.actions').review(verdict, part, arguments[2])
  end
end

---@param request string
local function in_folder(request)
  return function()
    require('s0_sync.actions').in_folder(request)
  end
end

---@type s0_sync.Subcommand[]
M.subcommands = {
  {
    name = 'status',
    description = 'Say how the directory is, what is the matter and what can be done.',
    run = function()
      M.show_status()
    end,
  },
  {
    name = 'next',
    description = 'Go to the next hunk of an agent; around the end with |wrapscan|.',
    run = function()
      require('s0_sync.hunks').go(true)
    end,
  },
  {
    name = 'previous',
    description = 'Go to the previous hunk.',
    run = function()
      require('s0_sync.hunks').go(false)
    end,
  },
  {
    name = 'keep',
    arguments = '[hunk|file|all|agent {name}]',
    description = [[
Keep what an agent wrote: it counts as reviewed. The hunk at the cursor, the
file, everything, or everything of one agent.]],
    values = what_to_review,
    run = reviewing('keep'),
  },
  {
    name = 'revert',
    arguments = '[hunk|file|all|agent {name}]',
    description = [[
Write back what was there when it was reviewed last, here and so at the agent's.
It is refused where the file is not what you look at.]],
    values = what_to_review,
    run = reviewing('revert'),
  },
  {
    name = 'compare',
    description = [[
Show the file beside what it was when it was reviewed last; in a conflict beside
theirs; and where a write is held, beside the incoming one.]],
    run = function()
      require('s0_sync.actions').compare()
    end,
  },
  {
    name = 'before',
    description = 'Show or hide, above each hunk, the lines that were there before.',
    run = function()
      require('s0_sync.hunks').toggle_before()
    end,
  },
  {
    name = 'review',
    description = 'List the files that agents wrote and nobody reviewed, in the quickfix window.',
    run = function()
      require('s0_sync.lists').open('incoming')
    end,
  },
  {
    name = 'conflicts',
    description = 'List the open conflicts in the quickfix window.',
    run = function()
      require('s0_sync.lists').open('conflicts')
    end,
  },
  {
    name = 'resolve',
    arguments = '{way} [path|all] [name]',
    description = [[
Settle the conflict of this file, of a path, or all: keep-mine, take-theirs,
keep-both, merge, mark (it is right as the file stands), ignore, or rename with
a new name. |gra| offers the same.]],
    values = function(before)
      if #before == 0 then
        return ways_here('conflicts', WAYS)
      end
      return #before == 1 and vim.list_extend({ 'all' }, paths('conflicts')) or {}
    end,
    run = function(arguments)
      local word = arguments[1] or ''
      if not vim.list_contains(WAYS, word) then
        M.wrong_use('resolve')
        return
      end
      local way = underscored(word) --[[@as s0_sync.Way]]
      require('s0_sync.actions').resolve(way, arguments[2], arguments[3])
    end,
  },
  {
    name = 'settle',
    arguments = '{way} [path]',
    description = [[
Settle an incoming write that is held, because the buffer has unsaved text or
because the path would run on this machine: take it, discard it, or keep-both.
What `take` replaces in a buffer comes back with |u|.]],
    values = function(before)
      if #before == 0 then
        return ways_here('held', HELD_WAYS)
      end
      return #before == 1 and paths('held') or {}
    end,
    run = function(arguments)
      local word = arguments[1] or ''
      if not vim.list_contains(HELD_WAYS, word) then
        M.wrong_use('settle')
        return
      end
      local way = underscored(word) --[[@as s0_sync.HeldWay]]
      require('s0_sync.actions').settle(way, arguments[2])
    end,
  },
  {
    name = 'agent',
    arguments = '[command …]',
    description = [[
Open a terminal in a second directory that is attached to the same Volume as a
sandbox, and run an agent there: the command, `agent_command`, or a shell.]],
    run = function(arguments)
      require('s0_sync.actions').agent(arguments)
    end,
  },
  {
    name = 'attach',
    arguments = '[volume]',
    description = 'Attach the current directory to a Volume; without one, a Volume is made.',
    run = function(arguments)
      require('s0_sync.actions').attach(arguments[1])
    end,
  },
  {
    name = 'detach',
    description = 'Stop syncing this directory. Its files and the Volume stay.',
    run = in_folder('detach'),
  },
  {
    name = 'start',
    description = 'Start syncing again, and the sidecar where it does not run.',
    run = function()
      require('s0_sync.actions').start()
    end,
  },
  {
    name = 'stop',
    description = 'Pause syncing of this directory.',
    run = in_folder('stop'),
  },
  {
    name = 'resume',
    arguments = '[confirm-deletions]',
    description = [[
Go on after a halt; with confirm-deletions when the files that vanished were
meant to.]],
    values = function(before)
      return #before == 0 and { 'confirm-deletions' } or {}
    end,
    run = function(arguments)
      local confirmed = arguments[1] == 'confirm-deletions' or nil
      require('s0_sync.actions').in_folder('resume', { confirmDeletions = confirmed })
    end,
  },
  {
    name = 'flush',
    description = 'Say when everything has arrived on both sides, or what has not and why.',
    run = in_folder('flush'),
  },
  {
    name = 'snapshot',
    arguments = '{name}',
    description = 'Take a snapshot of the Volume.',
    run = function(arguments)
      if not arguments[1] then
        M.wrong_use('snapshot')
        return
      end
      require('s0_sync.actions').in_folder('snapshot', { name = table.concat(arguments, ' ') })
    end,
  },
  {
    name = 'restore',
    arguments = '{snapshot}',
    description = 'Make the Volume, and every attached directory, what a snapshot was.',
    run = function(arguments)
      if not arguments[1] then
        M.wrong_use('restore')
        return
      end
      require('s0_sync.actions').restore(table.concat(arguments, ' '))
    end,
  },
  {
    name = 'fork',
    description = 'Make a new Volume that begins as this one is.',
    run = in_folder('fork'),
  },
  {
    name = 'log',
    description = "Open the log of this directory's replica.",
    run = function()
      require('s0_sync.actions').log()
    end,
  },
  {
    name = 'restart',
    description = 'Restart the sidecar. What was reviewed is remembered.',
    run = function()
      require('s0_sync.actions').restart()
    end,
  },
}

---@param name string
---@return s0_sync.Subcommand?
local function find(name)
  for _, subcommand in ipairs(M.subcommands) do
    if subcommand.name == name then
      return subcommand
    end
  end
end

---@param name string
function M.wrong_use(name)
  local subcommand = assert(find(name))
  require('s0_sync.client').say(
    ('use :S0Sync %s %s'):format(name, subcommand.arguments or ''),
    vim.log.levels.ERROR
  )
end

function M.show_status()
  local client = require('s0_sync.client')
  local state = current_state()
  if not state then
    client.say('nothing is attached here; :S0Sync attach attaches the current directory')
    return
  end
  local of_folder = require('s0_sync.state').of_folder(state)
  local lines = {
    ('%s (%s)'):format(of_folder.root, require('s0_sync.status').format(of_folder)),
    state.message,
  }
  for _, held in ipairs(state.held) do
    local why = held.why == 'unsaved' and 'has unsaved text' or 'would run on this machine'
    lines[#lines + 1] = ('%s is held: it %s'):format(held.path, why)
  end
  for _, problem in ipairs(state.problems) do
    lines[#lines + 1] = ('%s: %s'):format(problem.path, problem.why)
  end
  client.say(table.concat(lines, '\n'))
end

---@param args vim.api.keyset.create_user_command.command_args
function M.run(args)
  local arguments = vim.deepcopy(args.fargs)
  local name = table.remove(arguments, 1) or 'status'
  local subcommand = find(name)
  if subcommand then
    subcommand.run(arguments)
  else
    require('s0_sync.client').say(
      ('there is no :S0Sync %s; see :help s0_sync-commands'):format(name),
      vim.log.levels.ERROR
    )
  end
end

---@param lead string
---@param line string
---@param position integer
---@return string[]
function M.complete(lead, line, position)
  local words = vim.split(line:sub(1, position), '%s+')
  -- The first is the command itself, the last is the one that is being typed.
  local before = vim.list_slice(words, 2, #words - 1)
  local name = table.remove(before, 1)
  local values ---@type string[]
  if not name then
    values = vim.tbl_map(function(subcommand)
      return subcommand.name
    end, M.subcommands)
  else
    local subcommand = find(name)
    values = subcommand and subcommand.values and subcommand.values(before) or {}
  end
  return vim.tbl_filter(function(value)
    return vim.startswith(value, lead)
  end, values)
end

return M
