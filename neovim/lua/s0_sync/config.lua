-- What can be configured: one table that drives the defaults, the validation and the help file.

local M = {}

---@class s0_sync.Option
---@field name string Nested options have a dot in their name.
---@field type string|string[] As `type()` calls them.
---@field default any
---@field description string

---@class s0_sync.Signs
---@field added string
---@field changed string
---@field deleted string

--- What is in force.
---@class s0_sync.Config
---@field cmd string[]
---@field autostart boolean
---@field settings table<string, any>
---@field signs s0_sync.Signs
---@field sign_priority integer
---@field line_highlight boolean
---@field virtual_text boolean
---@field notify boolean
---@field update_debounce integer
---@field agent_command? string|string[]

--- What a user may set: each of it, or nothing.
---@class s0_sync.UserConfig
---@field cmd? string[]
---@field autostart? boolean
---@field settings? table<string, any>
---@field signs? { added?: string, changed?: string, deleted?: string }
---@field sign_priority? integer
---@field line_highlight? boolean
---@field virtual_text? boolean
---@field notify? boolean
---@field update_debounce? integer
---@field agent_command? string|string[]

---@type s0_sync.Option[]
M.schema = {
  {
    name = 'cmd',
    type = 'table',
    default = { 's0-sync-lsp', '--stdio' },
    description = 'The command that starts the sidecar. It must be on your PATH, or given in full.',
  },
  {
    name = 'autostart',
    type = 'boolean',
    default = true,
    description = [[
Start the sidecar by itself where the directory, or one above it, is attached.
Without it, start with |:S0Sync-start|, or on Neovim 0.11 with
`vim.lsp.enable('s0_sync')`.]],
  },
  {
    name = 'settings',
    type = 'table',
    default = {},
    description = [[
Settings of the sidecar itself, nested as their names are: see
|s0_sync-settings|.]],
  },
  {
    name = 'signs.added',
    type = 'string',
    default = '┃',
    description = 'The sign beside lines that an agent added. The empty text shows none.',
  },
  {
    name = 'signs.changed',
    type = 'string',
    default = '┃',
    description = 'The sign beside lines that an agent changed.',
  },
  {
    name = 'signs.deleted',
    type = 'string',
    default = '▁',
    description = 'The sign where an agent deleted lines.',
  },
  {
    name = 'sign_priority',
    type = 'number',
    default = 12,
    description = 'The priority of the signs, see |sign-priority|.',
  },
  {
    name = 'line_highlight',
    type = 'boolean',
    default = true,
    description = "Give an agent's lines a background.",
  },
  {
    name = 'virtual_text',
    type = 'boolean',
    default = true,
    description = 'Say at the end of the first line of a hunk who wrote it.',
  },
  {
    name = 'notify',
    type = 'boolean',
    default = true,
    description = [[
Say once when uploads begin to wait for conflicts, and once when syncing halts.
Status lines show both in any case.]],
  },
  {
    name = 'update_debounce',
    type = 'number',
    default = 100,
    description = [[
How many milliseconds of quiet |User-S0SyncUpdate| waits for, so that a burst of
writes is one update.]],
  },
  {
    name = 'agent_command',
    type = { 'string', 'table', 'nil' },
    default = nil,
    description = [[
What `:S0Sync agent` runs in its terminal when no command follows; 'shell' when
nothing is set.]],
  },
}

---@param where string
---@param value any
---@param wanted string|string[]
---@return string? complaint
local function mismatch(where, value, wanted)
  local types = type(wanted) == 'table' and wanted or { wanted }
  if not vim.tbl_contains(types, type(value)) then
    local expected = table.concat(types, ' or ')
    return ('%s: expected %s, got %s'):format(where, expected, type(value))
  end
end

---@return s0_sync.Config
local function defaults()
  local config = {} ---@type any
  for _, option in ipairs(M.schema) do
    local parent, leaf = option.name:match('^(.-)%.(.*)$')
    if parent then
      config[parent] = config[parent] or {}
      config[parent][leaf] = option.default
    else
      config[option.name] = vim.deepcopy(option.default)
    end
  end
  return config
end

--- Merges what a user set over the defaults. What is wrong is left out and complained about.
---@param given any
---@return s0_sync.Config config, string[] complaints
function M.resolve(given)
  local config = defaults()
  local complaints = {} ---@type string[]
  if type(given) == 'function' then
    given = given()
  end
  if given == nil then
    return config, complaints
  end
  local wrong = mismatch('vim.g.s0_sync', given, { 'table', 'function' })
  if wrong then
    return config, { wrong }
  end

  local known = {} ---@type table<string, true>
  for _, option in ipairs(M.schema) do
    local parent, leaf = option.name:match('^(.-)%.(.*)$')
    local from, into = given, config ---@type any, any
    known[parent or option.name] = true
    if parent then
      from, into = given[parent], config[parent]
      if from ~= nil and type(from) ~= 'table' then
        complaints[#complaints + 1] = mismatch('vim.g.s0_sync.' .. parent, from, 'table')
        given[parent], from = nil, nil
      end
    end
    local name = leaf or option.name
    if from and from[name] ~= nil then
      local complaint = mismatch('vim.g.s0_sync.' .. option.name, from[name], option.type)
      if complaint then
        complaints[#complaints + 1] = complaint
      else
        into[name] = from[name]
      end
    end
  end
  for name in vim.spairs(given) do
    if not known[name] then
      complaints[#complaints + 1] = ('vim.g.s0_sync.%s: there is no such option'):format(name)
    end
  end
  return config, complaints
end

local current, source ---@type s0_sync.Config?, any

--- The configuration in force: `vim.g.s0_sync` as it is now.
---@return s0_sync.Config
function M.get()
  local given = vim.g.s0_sync
  if not current or not vim.deep_equal(source, given) then
    local complaints
    current, complaints = M.resolve(vim.deepcopy(given))
    source = given
    if #complaints > 0 then
      vim.notify_once(
        's0 sync: ' .. table.concat(complaints, '\n') .. '\nSee :help s0_sync-config',
        vim.log.levels.WARN
      )
    end
  end
  return current
end

return M
