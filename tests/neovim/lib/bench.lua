-- What one test is made of: a temporary home, a service, a user's directory, an agent's directory, real editors.

local wait = require('wait')

local M = {}

local REPOSITORY = vim.fs.dirname(
  vim.fs.dirname(vim.fs.dirname(vim.fs.dirname(debug.getinfo(1, 'S').source:sub(2))))
)
M.repository = vim.uv.fs_realpath(REPOSITORY) or REPOSITORY
local S0 = assert(vim.env.S0_BIN, 'S0_BIN names the program s0')
local SIDECAR = assert(vim.env.S0_LSP_BIN, 'S0_LSP_BIN names the program s0-sync-lsp')

---@class Bench
---@field dir string
---@field environment table<string, string>
---@field user string The directory that the editor opens.
---@field agent string The directory that an agent works in.
---@field volume string
---@field editors Editor[]
---@field figures string[]
local Bench = {}
Bench.__index = Bench

---@class Editor
---@field channel integer
---@field job integer
local Editor = {}
Editor.__index = Editor

---@param path string
---@param text string
function M.write(path, text)
  vim.fn.mkdir(vim.fs.dirname(path), 'p')
  local file = assert(io.open(path, 'wb'))
  file:write(text)
  file:close()
end

---@param path string
---@return string? text
function M.read(path)
  local file = io.open(path, 'rb')
  if not file then
    return nil
  end
  local text = file:read('*a')
  file:close()
  return text
end

--- A temporary place of its own, and nothing of the real home in its environment.
---@return Bench
function M.new()
  local self = setmetatable({ editors = {}, figures = {} }, Bench)
  self.dir = assert(vim.uv.fs_mkdtemp(vim.uv.os_tmpdir() .. '/s0-neovim-XXXXXX'))
  self.environment = {
    PATH = vim.fs.dirname(SIDECAR) .. ':' .. vim.env.PATH,
    HOME = self.dir .. '/home',
    XDG_CONFIG_HOME = self.dir .. '/home/.config',
    XDG_DATA_HOME = self.dir .. '/home/.local/share',
    XDG_STATE_HOME = self.dir .. '/home/.local/state',
    XDG_CACHE_HOME = self.dir .. '/home/.cache',
    XDG_RUNTIME_DIR = self.dir .. '/run',
    S0_DATA_DIR = self.dir .. '/service',
    S0_STATE_DIR = self.dir .. '/state',
    S0_NEOVIM_BENCH = self.dir,
    TERM = 'xterm-256color',
    LANG = 'C.UTF-8',
    SHELL = '/bin/sh',
  }
  for _, directory in ipairs({ 'home', 'run', 'user', 'agent' }) do
    vim.fn.mkdir(self.dir .. '/' .. directory, 'p', tonumber('700', 8))
  end
  self.user, self.agent = self.dir .. '/user', self.dir .. '/agent'
  return self
end

--- A command with this test's environment and nothing else. (`clear_env` of `vim.system()` loses it on 0.10.)
---@param command string[]
---@param more? table<string, string>
---@return string[]
function Bench:with_environment(command, more)
  local all = { 'env', '-i' }
  for name, value in pairs(vim.tbl_extend('force', self.environment, more or {})) do
    all[#all + 1] = name .. '=' .. value
  end
  return vim.list_extend(all, command)
end

--- Runs `s0 …`; gives what it printed.
---@param arguments string[]
---@param options? { cwd?: string, fails?: boolean }
---@return string
function Bench:s0(arguments, options)
  options = options or {}
  local command = vim.list_extend({ S0 }, arguments)
  local done = vim
    .system(self:with_environment(command), { cwd = options.cwd or self.user, text = true })
    :wait(120000 * wait.patience)
  if done.code ~= 0 and not options.fails then
    error(
      ('%s ended with %d:\n%s%s'):format(
        table.concat(command, ' '),
        done.code,
        done.stdout,
        done.stderr
      )
    )
  end
  return done.stdout
end

---@param arguments string[]
---@param options? { cwd?: string, fails?: boolean }
---@return any
function Bench:json(arguments, options)
  return vim.json.decode(self:s0(vim.list_extend(arguments, { '-o', 'json' }), options))
end

--- Starts a service of this test's own.
function Bench:serve()
  local log = self.dir .. '/service.log'
  local out = assert(vim.uv.fs_open(log, 'a', tonumber('600', 8)))
  local function keep(_, data)
    if data then
      vim.uv.fs_write(out, data)
    end
  end
  local command =
    { S0, 'serve', '--listen', '127.0.0.1:0', '--data-dir', self.environment.S0_DATA_DIR }
  self.service = vim.system(self:with_environment(command), { stdout = keep, stderr = keep })
  wait.until_true('the service listens', function()
    return (M.read(log) or ''):find('listening on http', 1, true)
  end)
end

--- A service, and a user and an agent attached to one Volume that holds these files.
---@param files? table<string, string>
---@return Bench
function M.attached(files)
  local self = M.new()
  local ok, err = pcall(function()
    self:serve()
    for path, text in pairs(files or {}) do
      M.write(self.user .. '/' .. path, text)
    end
    self.volume = self:json({ 'volume', 'create' }).id
    self:s0({ 'sync', 'attach', self.volume, self.user })
    self:s0({
      'sync',
      'attach',
      self.volume,
      self.agent,
      '--as',
      'sandbox',
      '--sandbox-id',
      'sb_agent',
    })
  end)
  if not ok then
    self:close()
    error(err, 0)
  end
  return self
end

--- Waits until a file holds a text.
---@param path string
---@param text string
---@param seconds? number
function M.holds(path, text, seconds)
  wait.until_true(path .. ' holds the text', function()
    return M.read(path) == text
  end, seconds)
end

--- What the agent does: writes a file as a whole, as agents do.
---@param path string
---@param text string
function Bench:agent_writes(path, text)
  M.write(self.agent .. '/' .. path, text)
end

--- A vimrc of a user who did nothing but put the plugin on the runtime path.
---@param lines? string[]
---@return string path
function Bench:vimrc(lines)
  local path = self.dir .. '/init.lua'
  local text = {
    ('vim.opt.runtimepath:prepend(%q)'):format(M.repository .. '/neovim'),
    'vim.o.swapfile = false',
  }
  M.write(path, table.concat(vim.list_extend(text, lines or {}), '\n') .. '\n')
  return path
end

--- Records what would disturb the user: messages, and events that move the focus.
local RECORDER = [[
_G.said = {}
vim.notify = function(message, level) table.insert(_G.said, { message, level }) end
vim.notify_once = vim.notify
vim.ui.select = function() table.insert(_G.said, { 'a prompt was opened' }) end
_G.updates = 0
vim.api.nvim_create_autocmd('User', { pattern = 'S0SyncUpdate', callback = function() _G.updates = _G.updates + 1 end })
_G.moved = {}
vim.api.nvim_create_autocmd({ 'WinEnter', 'WinNew', 'BufEnter', 'TabEnter', 'CmdlineEnter' }, {
  callback = function(args) table.insert(_G.moved, args.event .. ' ' .. args.file) end,
})
]]

--- Starts a real editor, as a user would with these arguments.
---@param arguments? string[]
---@param options? { cwd?: string, vimrc?: string[] }
---@return Editor
function Bench:edit(arguments, options)
  options = options or {}
  local vimrc = self:vimrc(vim.list_extend({ RECORDER }, options.vimrc or {}))
  local command = vim.list_extend(
    { vim.v.progpath, '--embed', '--headless', '-i', 'NONE', '-u', vimrc },
    arguments or {}
  )
  local environment = vim.tbl_extend('force', self.environment, {
    VIM = vim.env.VIM,
    VIMRUNTIME = vim.env.VIMRUNTIME,
  })
  local job = vim.fn.jobstart(command, {
    rpc = true,
    cwd = options.cwd or self.user,
    env = environment,
    clear_env = true,
  })
  assert(job > 0, 'the editor does not start')
  local editor = setmetatable({ channel = job, job = job }, Editor)
  self.editors[#self.editors + 1] = editor
  wait.until_true('the editor has started', function()
    return editor:lua('return vim.v.vim_did_enter') == 1
  end)
  return editor
end

--- Runs Lua in the editor.
---@param code string
---@param ... any
---@return any
function Editor:lua(code, ...)
  return vim.rpcrequest(self.channel, 'nvim_exec_lua', code, { ... })
end

---@param command string
function Editor:command(command)
  vim.rpcrequest(self.channel, 'nvim_command', command)
end

---@param keys string As in a mapping.
function Editor:keys(keys)
  vim.rpcrequest(self.channel, 'nvim_input', keys)
end

---@return string
function Editor:text()
  return self:lua(
    [[return table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), '\n') .. '\n']]
  )
end

--- The first lines of the hunks that are shown, from 1, each with its signs.
---@return { line: integer, sign: string, text: string? }[]
function Editor:decorations()
  return self:lua([[
    local namespace = vim.api.nvim_get_namespaces().s0_sync_hunks
    if not namespace then return {} end
    local found = {}
    for _, mark in ipairs(vim.api.nvim_buf_get_extmarks(0, namespace, 0, -1, { details = true })) do
      local details = mark[4]
      local one = { line = mark[2] + 1 }
      if details.sign_text then one.sign = details.sign_hl_group end
      if details.virt_text then one.text = vim.trim(details.virt_text[1][1]) end
      table.insert(found, one)
    end
    return found
  ]])
end

--- The lines that carry a sign, such as `3 S0SyncChanged`.
---@return string[]
function Editor:signs()
  local found = {}
  for _, one in ipairs(self:decorations()) do
    if one.sign then
      found[#found + 1] = one.line .. ' ' .. one.sign
    end
  end
  table.sort(found)
  return found
end

--- What is written at the ends of lines, from top to bottom.
---@return string[]
function Editor:labels()
  local found = {}
  for _, one in ipairs(self:decorations()) do
    found[#found + 1] = one.text
  end
  return found
end

---@return table?
function Editor:status()
  local status = self:lua([[return require('s0_sync.status').get() or vim.NIL]])
  return status ~= vim.NIL and status or nil
end

---@param condition string
---@param seconds? number
function Editor:wait_condition(condition, seconds)
  wait.until_true('the condition is ' .. condition, function()
    local status = self:status()
    return status and status.condition == condition
  end, seconds)
end

---@param count integer
---@param seconds? number
function Editor:wait_hunks(count, seconds)
  wait.until_true(('%d hunks are shown'):format(count), function()
    return self:lua([[
      local file = require('s0_sync.state').hunks[vim.api.nvim_get_current_buf()]
      return file and #file.hunks or 0
    ]]) == count
  end, seconds)
end

--- The client that the current buffer is attached to; 0 without one.
---@return integer
function Editor:client()
  return self:lua([[
    local client = vim.lsp.get_clients({ name = 's0_sync', bufnr = 0 })[1]
    return client and client.id or 0
  ]])
end

---@return { [1]: string, [2]: integer? }[]
function Editor:said()
  return self:lua('return _G.said')
end

---@class Terminal
---@field socket string
---@field bench Bench
local Terminal = {}
Terminal.__index = Terminal

--- Starts an editor in a terminal of its own.
---@param arguments string[]
---@param vimrc? string[]
---@return Terminal
function Bench:terminal(arguments, vimrc)
  local self_terminal = setmetatable({ socket = self.dir .. '/tmux', bench = self }, Terminal)
  local editor = { vim.v.progpath, '-i', 'NONE', '-u', self:vimrc(vimrc), unpack(arguments) }
  local command = self:with_environment(editor, {
    VIM = vim.env.VIM,
    VIMRUNTIME = vim.env.VIMRUNTIME,
  })
  self_terminal:tmux({
    'new-session',
    '-d',
    '-x',
    '90',
    '-y',
    '14',
    '-c',
    self.user,
    '--',
    unpack(command),
  })
  return self_terminal
end

---@param arguments string[]
---@return string
function Terminal:tmux(arguments)
  local command = { 'tmux', '-u', '-S', self.socket, '-f', '/dev/null', unpack(arguments) }
  local done = vim
    .system(self.bench:with_environment(command), { cwd = self.bench.user, text = true })
    :wait(10000)
  assert(done.code == 0, done.stderr)
  return done.stdout
end

---@return string
function Terminal:screen()
  return self:tmux({ 'capture-pane', '-p' })
end

---@param ... string As tmux calls keys.
function Terminal:types(...)
  self:tmux({ 'send-keys', ... })
end

---@param pattern string
---@param seconds? number
function Terminal:shows(pattern, seconds)
  local screen = ''
  local ok = pcall(wait.until_true, pattern, function()
    screen = self:screen()
    return screen:find(pattern) ~= nil
  end, seconds)
  if not ok then
    error(('the screen never showed %q; it shows:\n%s'):format(pattern, screen), 2)
  end
end

function Editor:quit()
  if self.job then
    pcall(vim.rpcnotify, self.channel, 'nvim_command', 'qall!')
    if vim.fn.jobwait({ self.job }, 3000)[1] == -1 then
      vim.fn.jobstop(self.job)
      vim.fn.jobwait({ self.job }, 3000)
    end
    self.job = nil
  end
end

--- The processes of this test, told by the mark in their environment.
---@return integer[]
function Bench:processes()
  local found = {}
  local mark = 'S0_NEOVIM_BENCH=' .. self.dir .. '\0'
  for name in vim.fs.dir('/proc') do
    local id = tonumber(name)
    if id and id ~= vim.uv.os_getpid() then
      local environment = M.read('/proc/' .. name .. '/environ')
      local state = (M.read('/proc/' .. name .. '/stat') or ''):match('.*%) (%a)')
      if environment and (environment .. '\0'):find(mark, 1, true) and state ~= 'Z' then
        found[#found + 1] = id
      end
    end
  end
  return found
end

--- The ends of all logs, for a failure.
---@return string
function Bench:logs()
  local parts = {}
  local found = vim.fs.find(function(name)
    return name == 'log' or name:match('%.log$') ~= nil
  end, { path = self.dir, limit = 20, type = 'file' })
  for _, path in ipairs(found) do
    local lines = vim.split(M.read(path) or '', '\n')
    parts[#parts + 1] = '--- ' .. path:sub(#self.dir + 2)
    vim.list_extend(parts, vim.list_slice(lines, math.max(1, #lines - 20)))
  end
  return table.concat(parts, '\n')
end

--- Ends and removes all that the test made.
function Bench:close()
  for _, editor in ipairs(self.editors) do
    editor:quit()
  end
  -- Again and again: an editor starts a sidecar anew when that ends before it.
  wait.until_true("this test's processes end", function()
    local left = self:processes()
    for _, id in ipairs(left) do
      vim.uv.kill(id, 'sigkill')
    end
    return #left == 0
  end)
  vim.fn.delete(self.dir, 'rf')
end

--- A test: makes a bench, runs with it, and removes it whatever happens. The logs go with a failure.
---@param make fun(): Bench
---@param run fun(b: Bench)
---@return fun(figures: string[])
function M.test(make, run)
  return function(figures)
    local b = make()
    b.figures = figures
    local ok, err = xpcall(run, debug.traceback, b)
    if not ok then
      local messages = {}
      for _, editor in ipairs(b.editors) do
        local answered, text =
          pcall(editor.lua, editor, [[return vim.inspect(_G.said) .. vim.fn.execute('messages')]])
        messages[#messages + 1] = '--- said in the editor: '
          .. (answered and text or '(it is gone)')
      end
      err = ('%s\n%s\n%s'):format(err, table.concat(messages, '\n'), b:logs())
    end
    b:close()
    if not ok then
      error(err, 0)
    end
  end
end

return M
