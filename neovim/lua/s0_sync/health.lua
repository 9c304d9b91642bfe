-- `:checkhealth s0_sync`

local M = {}

local health = vim.health

---@param command string[]
---@return vim.SystemCompleted?
local function run(command)
  local ok, done = pcall(function()
    return vim.system(command, { text = true, timeout = 3000 }):wait()
  end)
  return ok and done or nil
end

local function check_editor()
  health.start('Neovim')
  if vim.fn.has('nvim-0.10') == 1 then
    health.ok(vim.fn.execute('version'):match('NVIM [^\n]*') or 'new enough')
  else
    health.error('Neovim 0.10 or newer is needed')
  end
end

local function check_configuration()
  health.start('Configuration')
  local _, complaints = require('s0_sync.config').resolve(vim.deepcopy(vim.g.s0_sync))
  for _, complaint in ipairs(complaints) do
    health.error(complaint, { 'See :help s0_sync-config' })
  end
  if #complaints == 0 then
    health.ok('vim.g.s0_sync is valid')
  end
end

local function check_sidecar()
  health.start('Sidecar')
  local command = require('s0_sync.config').get().cmd[1] or ''
  local program = vim.fn.exepath(command)
  if program == '' then
    health.error(command .. ' is not executable', {
      'Build it (see the README of s0 sync) and put it on your PATH,',
      'or set vim.g.s0_sync = { cmd = { "/path/to/s0-sync-lsp", "--stdio" } }',
    })
    return
  end
  local done = run({ program, '--version' })
  if done and done.code == 0 then
    health.ok(('%s: %s'):format(program, vim.trim(done.stdout or '')))
  else
    health.error(program .. ' --version did not answer', { done and done.stderr or 'no answer' })
  end
end

local function check_directories()
  health.start('Directories')
  local client = require('s0_sync.client')
  local state = require('s0_sync.state')
  local clients = vim.lsp.get_clients({ name = client.name })
  if #clients == 0 then
    health.info(
      'no sidecar runs: nothing attached is open. :S0Sync attach attaches the current directory'
    )
  end
  for _, one in ipairs(clients) do
    local folder = state.folders[client.folder(one)]
    local text = ('%s: %s'):format(one.root_dir, folder and folder.condition or 'not known yet')
    if folder and folder.message then
      text = text .. ', ' .. folder.message
    end
    local trouble = { 'blocked', 'halted', 'offline' }
    if not folder or vim.list_contains(trouble, folder.condition) then
      health.warn(text)
    else
      health.ok(text)
    end
  end
  local enabled = vim.lsp.is_enabled and vim.lsp.is_enabled(client.name)
  if not enabled and not require('s0_sync.config').get().autostart then
    health.info('autostart is off, and the client is not enabled')
  end
end

function M.check()
  check_editor()
  check_configuration()
  check_sidecar()
  check_directories()
end

return M
