-- What the plugin makes of messages, and what it sends: against a scripted sidecar.

local bench = require('bench')
local wait = require('wait')
local equal, check = wait.equal, wait.check

local FIVE = 'one\ntwo\nthree\nfour\nfive\n'

--- A test in an editor whose sidecar is scripted, with a file of an attached directory open.
---@param run fun(editor: Editor, b: Bench)
---@param vimrc? string[]
local function scripted(run, vimrc)
  return bench.test(bench.new, function(b)
    bench.write(b.user .. '/.s0/id', 'x\n')
    bench.write(b.user .. '/a.txt', FIVE)
    bench.write(b.user .. '/b.txt', FIVE)
    local script = ('dofile(%q)'):format(bench.repository .. '/tests/neovim/lib/scripted.lua')
    local editor = b:edit({ 'a.txt' }, { vimrc = vim.list_extend({ script }, vimrc or {}) })
    wait.until_true('the buffer is attached', function()
      return editor:client() > 0
    end)
    run(editor, b)
  end)
end

--- What was told about unsaved text, as `a.txt true`.
---@param editor Editor
---@return string[]
local function told_dirty(editor)
  return editor:lua([[
    local found = {}
    for _, params in ipairs(_G.sent_of('s0-sync/didChangeDirty')) do
      table.insert(found, vim.fs.basename(params.uri) .. ' ' .. tostring(params.dirty))
    end
    return found]])
end

--- Says that files were written for the Volume.
---@param editor Editor
---@param path string
local function apply(editor, path)
  editor:lua(
    [[_G.tell('s0-sync/didApply', {
      folder = vim.uri_from_fname(vim.fn.getcwd()),
      items = { { uri = vim.uri_from_fname(...), removed = false, actor = 'sb' } },
    })]],
    path
  )
end

return {
  {
    'the client says which messages it speaks',
    scripted(function(editor)
      equal(
        { version = 1 },
        editor:lua([[return _G.sent_of('initialize')[1].capabilities.experimental.s0Sync]]),
        'experimental.s0Sync'
      )
    end),
  },
  {
    'unsaved text is told once, of buffers in the background too, and that it was saved or undone',
    scripted(function(editor)
      editor:keys('Ox<Esc>')
      wait.until_true('it is told', function()
        return #told_dirty(editor) == 1
      end)
      editor:keys('Ox<Esc>uu')
      wait.until_true('undo is told', function()
        return #told_dirty(editor) == 2
      end)
      editor:lua([[
        local buf = vim.fn.bufadd('b.txt')
        vim.fn.bufload(buf)
        vim.lsp.buf_attach_client(buf, vim.lsp.get_clients({ name = 's0_sync' })[1].id)
        vim.api.nvim_buf_set_lines(buf, 0, 0, false, { 'x' })]])
      wait.until_true('the buffer in the background is told', function()
        return #told_dirty(editor) == 3
      end)
      editor:command('wall')
      wait.until_true('the save is told', function()
        return #told_dirty(editor) == 4
      end)
      equal(
        { 'a.txt true', 'a.txt false', 'b.txt true', 'b.txt false' },
        told_dirty(editor),
        'what was told'
      )
    end),
  },
  {
    'a buffer follows its file without a question, also with noautoread, and undo leads back',
    scripted(function(editor, b)
      bench.write(b.user .. '/a.txt', FIVE .. 'agent\n')
      apply(editor, b.user .. '/a.txt')
      wait.until_true('the buffer follows', function()
        return editor:text() == FIVE .. 'agent\n'
      end)
      equal({}, editor:said(), 'messages')
      editor:command('undo')
      equal(FIVE, editor:text(), 'the text after undo')
    end, { 'vim.o.autoread = false' }),
  },
  {
    'a buffer with unsaved text stays as it is, without a question',
    scripted(function(editor, b)
      editor:keys('Omine<Esc>')
      wait.until_true('it is told', function()
        return #told_dirty(editor) == 1
      end)
      bench.write(b.user .. '/a.txt', FIVE .. 'agent\n')
      apply(editor, b.user .. '/a.txt')
      equal('mine\n' .. FIVE, editor:text(), 'the text')
      equal('n', editor:lua('return vim.api.nvim_get_mode().mode'), 'the mode')
      equal({}, editor:said(), 'messages')
    end),
  },
  {
    'a file that was opened through a link follows too',
    scripted(function(editor, b)
      vim.uv.fs_symlink(b.user .. '/a.txt', b.user .. '/link.txt')
      editor:command('edit link.txt')
      wait.until_true('the buffer is attached', function()
        return editor:client() > 0
      end)
      bench.write(b.user .. '/a.txt', FIVE .. 'agent\n')
      apply(editor, b.user .. '/link.txt')
      wait.until_true('the buffer follows', function()
        return editor:text() == FIVE .. 'agent\n'
      end)
    end),
  },
  {
    'hunks of another version of the text are asked for again',
    scripted(function(editor)
      editor:lua([[
        _G.sent = {}
        _G.tell('s0-sync/didChangeHunks', {
          uri = vim.uri_from_bufnr(0), documentVersion = -1, version = 'v', hunks = {},
        })]])
      wait.until_true('they are asked for', function()
        return editor:lua([[return #_G.sent_of('s0-sync/hunks')]]) == 1
      end)
    end),
  },
  {
    'a question that a sidecar left open when it ended is put to the next one',
    scripted(function(editor)
      local stale = [[_G.tell('s0-sync/didChangeHunks', {
        uri = vim.uri_from_bufnr(0), documentVersion = -1, version = 'v', hunks = {} })]]
      local asked = [[return #_G.sent_of('s0-sync/hunks')]]
      editor:lua([[_G.silent['s0-sync/hunks'] = true]])
      editor:lua(stale)
      editor:lua(stale)
      equal(1, editor:lua(asked), 'it is asked once while it is open')
      local first = editor:client()
      editor:lua('_G.die()')
      wait.until_true('another sidecar runs', function()
        return editor:client() > first
      end)
      editor:lua(stale)
      equal(2, editor:lua(asked), 'it is asked again')
    end),
  },
  {
    'the answer about the state at the start does not replace what came after the question',
    scripted(function(editor)
      editor:lua(
        [[_G.answers['s0-sync/state'] = { folders = { _G.folder_state('starting') } }
        local client = vim.lsp.get_clients({ name = 's0_sync' })[1]
        require('s0_sync.handlers').started(client)
        _G.tell('s0-sync/didChangeState', _G.folder_state('in_sync'))
        require('s0_sync.client').request(client, 's0-sync/volumes', {}, function() _G.answered = true end)]]
      )
      wait.until_true('what was asked later is answered', function()
        return editor:lua('return _G.answered')
      end)
      equal('in_sync', editor:status().condition, 'the condition')
    end),
  },
  {
    'that uploads wait is said once until all is well again, and what the sidecar asks opens no prompt',
    scripted(function(editor)
      local function becomes(condition)
        editor:lua([[_G.tell('s0-sync/didChangeState', _G.folder_state(...))]], condition)
      end
      becomes('blocked')
      becomes('syncing')
      becomes('blocked')
      equal(1, #editor:said(), 'messages')
      local first = editor:client()
      editor:command('S0Sync restart')
      wait.until_true('another client is there', function()
        return editor:client() > first
      end)
      becomes('blocked')
      equal(1, #editor:said(), 'messages after a restart')
      becomes('in_sync')
      becomes('blocked')
      equal(2, #editor:said(), 'messages of the next time')
      local ask = [[return _G.ask('window/showMessageRequest', {
        type = 2, message = 'what now?', actions = { { title = 'Show' } } }) == vim.NIL]]
      equal(true, editor:lua(ask), 'the answer is null')
      editor:lua(ask)
      equal(3, #editor:said(), 'messages with what was asked')
    end),
  },
  {
    'what was refused is said with its reason, and Revert wants a saved buffer',
    scripted(function(editor)
      editor:lua([[_G.answers['s0-sync/keep'] = {
        done = 0, refused = { { path = 'a.txt', why = 'the file is another one now' } } }]])
      editor:command('S0Sync keep file')
      wait.until_true('it is said', function()
        return #editor:said() == 1
      end)
      check(editor:said()[1][1]:find('a.txt: the file is another one now', 1, true), 'the reason')
      editor:command('S0Sync keep')
      check(editor:said()[2][1]:find('no hunk at the cursor', 1, true), 'no hunk')
      editor:keys('Ox<Esc>')
      wait.until_true('it is told', function()
        return #told_dirty(editor) == 1
      end)
      editor:command('S0Sync revert file')
      check(editor:said()[3][1]:find('unsaved text', 1, true), 'unsaved')
      equal({}, editor:lua([[return _G.sent_of('s0-sync/revert')]]), 'requests to revert')
    end),
  },
  {
    'Revert and Keep name the hunk and the version that was looked at',
    scripted(function(editor)
      editor:lua([[_G.answers['s0-sync/keep'] = { done = 1, refused = {} }
        _G.tell('s0-sync/didChangeHunks', {
          uri = vim.uri_from_bufnr(0),
          documentVersion = vim.lsp.util.buf_versions[vim.api.nvim_get_current_buf()],
          version = 'v7',
          hunks = { { id = 'h1', kind = 'added', start = 1, ['end'] = 2, before = {}, authors = {},
            actors = { { id = 'sb', label = 'sb' } }, time = 0 } },
        })]])
      editor:wait_hunks(1)
      editor:command('2')
      editor:command('S0Sync keep')
      local choice = editor:lua([[return _G.sent_of('s0-sync/keep')[1] ]])
      equal({ 'h1', 'v7' }, { choice.hunk, choice.version }, 'the choice')
      editor:lua([[local state = _G.folder_state('in_sync')
        state.incoming = { { path = 'a.txt', uri = vim.uri_from_bufnr(0), kind = 'changed', hunks = 1, added = 1,
          removed = 0, time = 0, actors = { { id = 'the id of sb', label = 'sb' } } } }
        _G.tell('s0-sync/didChangeState', state)]])
      equal(
        { 'sb' },
        editor:lua([[return vim.fn.getcompletion('S0Sync keep agent ', 'cmdline')]]),
        'names'
      )
      editor:command('S0Sync keep agent sb')
      choice = editor:lua([[return _G.sent_of('s0-sync/keep')[2] ]])
      equal('the id of sb', choice.actor, 'the agent')
      check(choice.folder and not choice.uri, 'the folder')
    end),
  },
  {
    'documents of the sidecar are read-only buffers that follow',
    scripted(function(editor)
      editor:lua([[_G.answers['s0-sync/content'] = { text = 'before\n' }
        _G.uri = 's0-sync:/a%20b/%C3%A4.txt?folder=file%3A%2F%2F%2Fw&version=base'
        vim.api.nvim_win_set_buf(0, require('s0_sync.buffers').open(_G.uri))]])
      equal('before\n', editor:text(), 'the text')
      equal(false, editor:lua('return vim.bo.modifiable'), 'modifiable')
      equal(
        editor:lua('return _G.uri'),
        editor:lua([[return _G.sent_of('s0-sync/content')[1].uri]]),
        'the URI that was asked for'
      )
      editor:lua([[_G.answers['s0-sync/content'] = { text = 'after\n' }
        _G.tell('s0-sync/didChangeContent', { uris = { _G.uri } })]])
      wait.until_true('the buffer follows', function()
        return editor:text() == 'after\n'
      end)
    end),
  },
  {
    'a sidecar that dies often is not started for ever',
    scripted(function(editor)
      for _ = 1, 4 do
        local client = editor:client()
        editor:lua('_G.die()')
        wait.until_true('another one is there, or it is said', function()
          return editor:client() > client
            or editor:lua([[
            for _, one in ipairs(_G.said) do
              if one[1]:find('checkhealth') then return true end
            end
            return false]])
        end)
      end
      equal(0, editor:client(), 'the client')
    end),
  },
}
