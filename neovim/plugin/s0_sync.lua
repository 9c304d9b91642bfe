-- What is there from the start: the command, the <Plug> maps, and the events that begin all else.
if vim.g.loaded_s0_sync then
  return
end
vim.g.loaded_s0_sync = true

vim.api.nvim_create_user_command('S0Sync', function(args)
  require('s0_sync.command').run(args)
end, {
  nargs = '*',
  desc = 's0 sync: review what agents wrote, settle conflicts, attach directories',
  complete = function(...)
    return require('s0_sync.command').complete(...)
  end,
})

for _, name in ipairs({ 'next', 'previous', 'keep', 'revert', 'compare', 'before' }) do
  local map = '<Plug>(s0-sync-' .. name .. ')'
  vim.keymap.set('n', map, '<Cmd>S0Sync ' .. name .. '<CR>', { desc = 's0 sync: ' .. name })
end

local group = vim.api.nvim_create_augroup('s0_sync', {})

---@param event any One event, or a list of them.
---@param callback fun(args: vim.api.keyset.create_autocmd.callback_args)
---@param pattern? string
local function on(event, callback, pattern)
  vim.api.nvim_create_autocmd(event, { group = group, pattern = pattern, callback = callback })
end

on({ 'BufReadPost', 'BufNewFile', 'BufFilePost', 'BufWritePost' }, function(args)
  require('s0_sync.client').autostart(args.buf)
end)
on({ 'VimEnter', 'DirChanged' }, function()
  require('s0_sync.client').autostart()
end)
on({ 'BufModifiedSet', 'BufWritePost' }, function(args)
  -- Without a client there is nobody to tell.
  if package.loaded['s0_sync.buffers'] then
    require('s0_sync.buffers').tell_dirty(args.buf)
  end
end)
-- Neovim before 0.11 takes a name with one slash after the colon for a file below the current directory.
on('BufReadCmd', function(args)
  require('s0_sync.buffers').read_document(args.buf)
end, '*s0-sync:/*')

-- A plugin manager may have been in no hurry.
if vim.v.vim_did_enter == 1 then
  require('s0_sync.client').autostart()
end
