-- For `vim.lsp.config('s0_sync', …)` and `vim.lsp.enable('s0_sync')` of Neovim 0.11 and newer.
return require('s0_sync.client').config()
