-- What the plugin does by itself, in a real editor, with messages that a test makes up.

local bench = require('bench')
local wait = require('wait')
local equal, check = wait.equal, wait.check

--- Runs a test in an editor without a sidecar.
---@param run fun(editor: Editor, b: Bench)
---@param options? table
local function editing(run, options)
  return bench.test(bench.new, function(b)
    bench.write(b.user .. '/a.txt', 'one\ntwo\nthree\nfour\nfive\n')
    run(b:edit({ 'a.txt' }, options), b)
  end)
end

--- Shows hunks as if the sidecar had sent them for the current text.
local SHOW = [[
  local buf = vim.api.nvim_get_current_buf()
  vim.lsp.util.buf_versions[buf] = 7
  local hunks = ...
  for _, hunk in ipairs(hunks) do
    hunk.authors, hunk.actors, hunk.time = {}, { { id = 'sb', label = 'sb_agent' } }, 0
    hunk.before = hunk.before or {}
  end
  require('s0_sync.handlers').lsp['s0-sync/didChangeHunks'](nil, {
    uri = vim.uri_from_bufnr(buf), documentVersion = 7, version = 'v', hunks = hunks,
  }, { client_id = 0 })
]]

local CHANGED = { id = 'c', kind = 'changed', start = 1, ['end'] = 3, before = { 'zwei', 'drei' } }
local DELETED = { id = 'd', kind = 'deleted', start = 4, ['end'] = 4, before = { 'gone' } }

return {
  {
    'nothing starts where nothing is attached',
    editing(function(editor)
      equal(0, editor:lua('return #vim.lsp.get_clients()'), 'clients')
      equal({}, editor:said(), 'messages')
      equal(
        true,
        editor:lua([[return package.loaded['s0_sync.hunks'] == nil]]),
        'only what is needed is loaded'
      )
    end),
  },
  {
    'hunks are shown with signs and names, and a new set replaces the old one',
    editing(function(editor)
      editor:lua(SHOW, { CHANGED, DELETED })
      equal({ '2 S0SyncChanged', '3 S0SyncChanged', '5 S0SyncDeleted' }, editor:signs(), 'signs')
      equal({ 'sb_agent', 'sb_agent deleted 1 line' }, editor:labels(), 'who wrote')
      editor:lua(SHOW, { CHANGED })
      equal({ '2 S0SyncChanged', '3 S0SyncChanged' }, editor:signs(), 'signs of the new set')
      editor:lua(SHOW, {})
      equal({}, editor:decorations(), 'decorations of an empty set')
    end),
  },
  {
    'hunks of another version of the text are not shown',
    editing(function(editor)
      editor:lua(SHOW, { CHANGED })
      editor:lua([[vim.lsp.util.buf_versions[vim.api.nvim_get_current_buf()] = 8
        require('s0_sync.handlers').lsp['s0-sync/didChangeHunks'](nil, {
          uri = vim.uri_from_bufnr(0), documentVersion = 7, version = 'old', hunks = {},
        }, { client_id = 0 })]])
      equal({ '2 S0SyncChanged', '3 S0SyncChanged' }, editor:signs(), 'signs')
    end),
  },
  {
    'hunks move with the text, and navigation goes around as wrapscan says',
    editing(function(editor)
      editor:lua(SHOW, { CHANGED, DELETED })
      editor:lua([[vim.api.nvim_buf_set_lines(0, 0, 0, false, { 'zero', 'null' })]])
      local function line_after(command)
        editor:command(command)
        return editor:lua('return vim.api.nvim_win_get_cursor(0)[1]')
      end
      editor:command('1')
      equal(4, line_after('S0Sync next'), 'the first hunk')
      equal('c', editor:lua([[return require('s0_sync.hunks').at_cursor().id]]), 'at the cursor')
      equal(7, line_after('S0Sync next'), 'the second hunk')
      equal('d', editor:lua([[return require('s0_sync.hunks').at_cursor().id]]), 'at the cursor')
      equal(4, line_after('S0Sync next'), 'around the end')
      equal(7, line_after('S0Sync previous'), 'around the start')
      editor:command('set nowrapscan')
      equal(7, line_after('S0Sync next'), 'not around the end')
      editor:command('3')
      equal(
        true,
        editor:lua([[return require('s0_sync.hunks').at_cursor() == nil]]),
        'no hunk beside one'
      )
    end),
  },
  {
    'lines that were there before are shown on demand',
    editing(function(editor)
      local count = [[return #vim.api.nvim_buf_get_extmarks(
        0, vim.api.nvim_get_namespaces().s0_sync_before, 0, -1, {})]]
      editor:lua(SHOW, { CHANGED, DELETED })
      equal(0, editor:lua(count), 'at first')
      editor:command('nmap gb <Plug>(s0-sync-before)')
      editor:keys('gb')
      wait.until_true('both are shown', function()
        return editor:lua(count) == 2
      end)
      editor:lua(SHOW, { CHANGED })
      equal(1, editor:lua(count), 'after a new set')
      editor:command('S0Sync before')
      equal(0, editor:lua(count), 'after the second call')
    end),
  },
  {
    'the command completes subcommands and their arguments',
    editing(function(editor)
      local function completions(line)
        return editor:lua('return vim.fn.getcompletion(..., "cmdline")', line)
      end
      check(vim.tbl_contains(completions('S0Sync '), 'revert'), 'revert is offered')
      equal({ 'keep' }, completions('S0Sync ke'), 'a beginning')
      equal({ 'hunk', 'file', 'all', 'agent' }, completions('S0Sync keep '), 'what to keep')
      equal({ 'take-theirs' }, completions('S0Sync resolve ta'), 'a way')
      equal({}, completions('S0Sync nothing '), 'of what is not there')
    end),
  },
  {
    'a wrong configuration is complained about with the path of what is wrong',
    function()
      package.path = bench.repository .. '/neovim/lua/?.lua;' .. package.path
      local config, complaints = require('s0_sync.config').resolve({
        autostart = 'yes',
        signs = { added = 5, deleted = 'x' },
        colour = 1,
      })
      equal({
        'vim.g.s0_sync.autostart: expected boolean, got string',
        'vim.g.s0_sync.signs.added: expected string, got number',
        'vim.g.s0_sync.colour: there is no such option',
      }, complaints, 'complaints')
      equal(true, config.autostart, 'the default stands')
      equal('x', config.signs.deleted, 'what is right is taken')
    end,
  },
  {
    ':checkhealth runs and names what is missing',
    editing(function(editor)
      editor:command('checkhealth s0_sync')
      local text = editor:text()
      check(text:find('vim.g.s0_sync is valid', 1, true), text)
      check(text:find('no%-such%-sidecar is not executable'), text)
    end, { vimrc = { "vim.g.s0_sync = { cmd = { 'no-such-sidecar' } }" } }),
  },
  {
    'a sidecar that is missing is said once, where something is attached',
    bench.test(bench.new, function(b)
      bench.write(b.user .. '/.s0/id', 'x\n')
      bench.write(b.user .. '/a.txt', 'one\n')
      local vimrc = { "vim.g.s0_sync = { cmd = { 'no-such-sidecar' } }" }
      local said = b:edit({ 'a.txt' }, { vimrc = vimrc }):said()
      check(#said > 0 and said[1][1]:find('checkhealth'), vim.inspect(said))
    end),
  },
}
