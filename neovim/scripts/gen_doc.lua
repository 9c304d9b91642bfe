-- Writes the generated parts of doc/s0_sync.txt from the tables that drive the plugin, and from
-- the schema of settings that the sidecar prints (S0_LSP_BIN, or s0-sync-lsp on PATH):
--
--     nvim --headless -u NONE -i NONE -l neovim/scripts/gen_doc.lua [--check]
--
-- With --check nothing is written, and a help file that is out of date is a failure.

local script = assert(debug.getinfo(1, 'S')).source:sub(2)
local here = vim.fs.dirname(vim.fs.dirname(assert(vim.uv.fs_realpath(script))))
package.path = here .. '/lua/?.lua;' .. package.path

local WIDTH = 78

---@param left string
---@param tag string
---@return string
local function heading(left, tag)
  return left .. (' '):rep(math.max(1, WIDTH - #left - #tag)) .. tag
end

--- The text as help: indented, wrapped, with code in the marks of help files.
---@param text string
---@param indent integer
---@return string[]
local function paragraph(text, indent)
  local lines, line = {}, '' ---@type string[], string
  for word in text:gmatch('%S+') do
    if line ~= '' and indent + #line + 1 + #word > WIDTH then
      lines[#lines + 1] = (' '):rep(indent) .. line
      line = word
    else
      line = line == '' and word or line .. ' ' .. word
    end
  end
  lines[#lines + 1] = (' '):rep(indent) .. line
  return lines
end

---@return string[]
local function commands()
  local lines = {} ---@type string[]
  for _, subcommand in ipairs(require('s0_sync.command').subcommands) do
    local usage = ':S0Sync ' .. subcommand.name
    if subcommand.arguments then
      usage = usage .. ' ' .. subcommand.arguments
    end
    lines[#lines + 1] = heading(usage, ('*:S0Sync-%s*'):format(subcommand.name))
    vim.list_extend(lines, paragraph(subcommand.description, 16))
    lines[#lines + 1] = ''
  end
  return lines
end

---@return string[]
local function options()
  local lines = {} ---@type string[]
  for _, option in ipairs(require('s0_sync.config').schema) do
    local types = type(option.type) == 'table' and table.concat(option.type, '|') or option.type
    local default = vim.inspect(option.default, { newline = ' ', indent = '' })
    lines[#lines + 1] = heading(option.name, ('*s0_sync-config-%s*'):format(option.name))
    lines[#lines + 1] = ('                Type: `%s`, default: `%s`'):format(types, default)
    vim.list_extend(lines, paragraph(option.description, 16))
    lines[#lines + 1] = ''
  end
  return lines
end

--- The sidecar's own settings, as `settings` of the configuration takes them.
---@return string[]
local function settings()
  local sidecar = vim.env.S0_LSP_BIN or 's0-sync-lsp'
  local printed = vim.system({ sidecar, '--print-config-schema' }, { text = true }):wait()
  assert(printed.code == 0, printed.stderr)
  local schema = vim.json.decode(printed.stdout)
  local lines = {} ---@type string[]
  for full, property in vim.spairs(schema.properties) do
    local name = assert(full:match('^s0%-sync%.(.+)$'))
    local types = type(property.type) == 'table' and table.concat(property.type, '|')
      or property.type
    lines[#lines + 1] = heading(name, ('*s0_sync-setting-%s*'):format(name))
    local default = vim.json.encode(property.default):gsub('","', '", "')
    vim.list_extend(lines, paragraph(('Type: `%s`, default: `%s`'):format(types, default), 16))
    vim.list_extend(lines, paragraph(property.description, 16))
    lines[#lines + 1] = ''
  end
  return lines
end

---@return string[]
local function highlights()
  local lines = {} ---@type string[]
  for _, highlight in ipairs(require('s0_sync.hunks').highlights) do
    lines[#lines + 1] = heading(highlight.name, ('*hl-%s*'):format(highlight.name))
    vim.list_extend(
      lines,
      paragraph(('%s Linked to |hl-%s|.'):format(highlight.description, highlight.link), 16)
    )
  end
  lines[#lines + 1] = ''
  return lines
end

local parts = {
  commands = commands,
  options = options,
  settings = settings,
  highlights = highlights,
}

---@param text string
---@return string
local function regenerated(text)
  local out, skipping = {}, nil ---@type string[], string?
  for _, line in ipairs(vim.split(text, '\n')) do
    local opened = line:match('^%s*%[generated: (%w+)%]$')
    local closed = line:match('^%s*%[end of (%w+)%]$')
    if closed then
      assert(closed == skipping, 'the marks of ' .. closed .. ' do not fit')
      skipping = nil
    end
    if not skipping then
      out[#out + 1] = line
    end
    if opened then
      vim.list_extend(out, assert(parts[opened], 'there is no part ' .. opened)())
      skipping = opened
    end
  end
  assert(not skipping, 'a part does not end')
  return table.concat(out, '\n')
end

local path = here .. '/doc/s0_sync.txt'
local file = assert(io.open(path))
local old = file:read('*a')
file:close()
local new = regenerated(old)
if vim.list_contains(_G.arg, '--check') then
  if new ~= old then
    io.write('neovim/doc/s0_sync.txt is out of date: run neovim/scripts/gen_doc.lua\n')
    os.exit(1)
  end
elseif new ~= old then
  file = assert(io.open(path, 'w'))
  file:write(new)
  file:close()
end
