-- The language client: where a sidecar runs, what it is started with, and how it is spoken to.

local M = {}

--- The name of the client, and of the file in `lsp/`.
M.name = 's0_sync'

--- How often a sidecar that dies is started again before the user is told.
local RESTARTS = 3
local RESTART_WINDOW_MS = 180000

--- Where each client runs: one that is still starting is not listed, one that ended cannot be asked.
local roots = {} ---@type table<integer, string>
--- When sidecars died by themselves, by root.
local deaths = {} ---@type table<string, integer[]>
--- Clients whose sidecar introduced itself: one that cannot even do that is not started again.
local introduced = {} ---@type table<integer, boolean?>
--- Clients that were told to stop: their end is no accident.
local stopping = {} ---@type table<integer, boolean>

---@param message string
---@param level? integer
function M.say(message, level)
  vim.notify('s0 sync: ' .. message, level or vim.log.levels.INFO)
end

--- Calls a method of a client; before 0.11 these were plain functions.
---@param client vim.lsp.Client
---@param method string
---@param ... any
---@return any ...
local function call(client, method, ...)
  local object = client ---@type any
  if vim.fn.has('nvim-0.11') == 1 then
    return object[method](object, ...)
  end
  return object[method](...)
end

--- The attached directory that a path is in: it has the replica's marker.
---@param path string
---@return string?
function M.root_of(path)
  local function is_root(directory)
    return vim.uv.fs_stat(vim.fs.joinpath(directory, '.s0', 'id')) ~= nil
  end
  path = vim.fs.normalize(vim.fn.fnamemodify(path, ':p')):gsub('(.)/$', '%1')
  if is_root(path) then
    return path
  end
  for directory in vim.fs.parents(path) do
    if is_root(directory) then
      return directory
    end
  end
end

--- The path of the file that a buffer shows; nil for a buffer that shows none.
---@param buf integer
---@return string?
function M.file_of(buf)
  if not vim.api.nvim_buf_is_loaded(buf) or vim.bo[buf].buftype ~= '' then
    return
  end
  local name = vim.api.nvim_buf_get_name(buf)
  if name == '' or name:match('^%a[%w+.-]+:/') then
    return
  end
  return name
end

--- The client of a root, be it still starting.
---@param root string
---@return vim.lsp.Client?
function M.at_root(root)
  for id, at in pairs(roots) do
    if at == root and not stopping[id] then
      return vim.lsp.get_client_by_id(id)
    end
  end
end

---@param buf integer
---@return vim.lsp.Client?
function M.of_buffer(buf)
  for _, client in ipairs(vim.lsp.get_clients({ bufnr = buf, name = M.name })) do
    if not stopping[client.id] then
      return client
    end
  end
end

--- The client that a command is about: the buffer's, else that of the current directory, else the only one.
---@return vim.lsp.Client?
function M.current()
  local client = M.of_buffer(0)
  if client then
    return client
  end
  local root = M.root_of(vim.fn.getcwd())
  client = M.at_root(root or vim.fn.getcwd())
  if client then
    return client
  end
  local all = vim.lsp.get_clients({ name = M.name })
  return #all == 1 and all[1] or nil
end

---@param client vim.lsp.Client
---@return string uri
function M.folder(client)
  return vim.uri_from_fname(assert(client.root_dir))
end

--- Sends a request. The callback gets either an error, in words, or the answer.
---@param client vim.lsp.Client
---@param method string
---@param params table
---@param callback fun(err?: string, result: any)
function M.request(client, method, params, callback)
  -- An empty Lua table would go as a list.
  params = next(params) and params or vim.empty_dict()
  call(client, 'request', method, params, function(err, result)
    callback(err and (err.message or tostring(err)) or nil, result)
  end)
end

---@param client vim.lsp.Client
---@param method string
---@param params table
---@param timeout_ms integer
---@return any result, string? err
function M.request_sync(client, method, params, timeout_ms)
  local answer, err = call(client, 'request_sync', method, params, timeout_ms)
  if not answer then
    return nil, err
  end
  return answer.result, answer.err and answer.err.message
end

---@param client vim.lsp.Client
---@param method string
---@param params table
function M.notify(client, method, params)
  call(client, 'notify', method, params)
end

---@param client vim.lsp.Client
function M.stop(client)
  stopping[client.id] = true
  call(client, 'stop')
end

--- What a sidecar is started with, but for its root.
---@return vim.lsp.Config
function M.config()
  local options = require('s0_sync.config').get()
  local handlers = require('s0_sync.handlers')
  local capabilities = vim.lsp.protocol.make_client_capabilities()
  capabilities.experimental = { s0Sync = { version = 1 } }
  return {
    name = M.name,
    cmd = options.cmd,
    capabilities = capabilities,
    init_options = next(options.settings) and options.settings or nil,
    settings = { ['s0-sync'] = options.settings },
    handlers = handlers.lsp,
    commands = handlers.commands(),
    workspace_required = true,
    root_dir = function(buf, on_dir)
      local file = M.file_of(buf)
      local root = file and M.root_of(file)
      if root then
        on_dir(root)
      end
    end,
    reuse_client = function(client, config)
      return client.name == config.name and client.root_dir == config.root_dir
    end,
    on_init = function(client)
      -- Neovim may have started it by itself, for `vim.lsp.enable()`.
      roots[client.id] = client.root_dir
      introduced[client.id] = true
      handlers.started(client)
      vim.schedule(function()
        M.attach_all(client)
      end)
    end,
    on_attach = function(_, buf)
      require('s0_sync.buffers').attached(buf)
    end,
    on_exit = function(code, _, id)
      -- Called from the event loop, where little is allowed.
      vim.schedule(function()
        M.ended(id, code)
      end)
    end,
  }
end

--- Starts a sidecar for a directory, unless one runs there.
---@param root string
---@return vim.lsp.Client?
function M.start(root)
  local client = M.at_root(root)
  if client then
    return client
  end
  -- From 0.11 on the user may have added to it.
  local registry = vim.lsp.config --[[@as table<string, vim.lsp.Config?>?]]
  local configured = registry and registry[M.name] or M.config()
  local config = vim.deepcopy(configured) --[[@as vim.lsp.ClientConfig]]
  config.root_dir = root
  local program = type(config.cmd) == 'table' and config.cmd[1] or nil
  if program and vim.fn.executable(program) == 0 then
    vim.notify_once(
      ('s0 sync: %s is not executable. See :checkhealth s0_sync'):format(program),
      vim.log.levels.WARN
    )
    return
  end
  local id ---@type integer?
  if vim.fn.has('nvim-0.11') == 1 then
    id = vim.lsp.start(config, { attach = false })
  else
    id = vim.lsp.start_client(config)
  end
  if not id then
    return
  end
  roots[id] = root
  return vim.lsp.get_client_by_id(id)
end

--- Whether a buffer shows a file that belongs to a client's directory.
---@param client vim.lsp.Client
---@param buf integer
---@return boolean
local function belongs(client, buf)
  local file = M.file_of(buf)
  local root = client.root_dir
  if not file or not root then
    return false
  end
  local inside = vim.startswith(vim.fs.normalize(file), root .. '/')
  return inside and (M.root_of(file) or root) == root and not file:find('/%.git/')
end

--- Attaches all buffers of a client's directory to it.
---@param client vim.lsp.Client
function M.attach_all(client)
  for _, buf in ipairs(vim.api.nvim_list_bufs()) do
    if belongs(client, buf) then
      vim.lsp.buf_attach_client(buf, client.id)
    end
  end
end

--- Starts what the configuration lets start by itself: for a buffer, or for the current directory.
---@param buf? integer
function M.autostart(buf)
  if not require('s0_sync.config').get().autostart then
    return
  end
  if not buf then
    local root = M.root_of(vim.fn.getcwd())
    if root then
      M.start(root)
    end
    -- `nvim DIRECTORY` opens a listing of it and stays where it is.
    for _, argument in
      ipairs(vim.fn.argv() --[[@as string[] ]])
    do
      local of_argument = vim.fn.isdirectory(argument) == 1 and M.root_of(argument)
      if of_argument then
        M.start(of_argument)
      end
    end
    return
  end
  local file = M.file_of(buf)
  local root = file and M.root_of(file)
  if root then
    local client = M.start(root)
    if client and client.initialized and belongs(client, buf) then
      vim.lsp.buf_attach_client(buf, client.id)
    end
  end
end

--- Stops and starts the sidecar of a directory.
---@param client vim.lsp.Client
function M.restart(client)
  local root = client.root_dir --[[@as string]]
  M.stop(client)
  M.start(root)
end

--- A sidecar ended. One that died is started again, a few times.
---@param id integer
---@param code integer
function M.ended(id, code)
  local root = roots[id]
  local by_itself = not stopping[id] and vim.v.exiting == vim.NIL
  local was_up = introduced[id]
  roots[id], introduced[id], stopping[id] = nil, nil, nil
  if not root then
    return
  end
  if not M.at_root(root) then
    require('s0_sync.handlers').ended(root)
  end
  if not by_itself then
    return
  end
  local now = vim.uv.now()
  local recent = vim.tbl_filter(function(time)
    return now - time < RESTART_WINDOW_MS
  end, deaths[root] or {})
  recent[#recent + 1] = now
  deaths[root] = recent
  if was_up and #recent <= RESTARTS then
    M.start(root)
  else
    M.say(
      ('the sidecar ended with %d; see :checkhealth s0_sync, then :S0Sync start'):format(code),
      vim.log.levels.ERROR
    )
  end
end

return M
