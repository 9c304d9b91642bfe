-- The real sidecar, the real service, a real agent's directory.

local bench = require('bench')
local place = require('place')
local wait = require('wait')
local attached, open = place.attached, place.open
local equal, check = wait.equal, wait.check

local FIVE = 'one\ntwo\nthree\nfour\nfive\n'
local TEN = 'one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten\n'

--- Types a line into the buffer, and waits until the host knows that the buffer has unsaved text.
---@param editor Editor
local function type_without_saving(editor)
  editor:keys('Omine<Esc>')
  wait.until_true('the buffer is modified', function()
    return editor:lua('return vim.bo.modified')
  end)
  -- What is told before a flush is known when that is done.
  editor:lua([[
    require('s0_sync.buffers').tell_dirty(vim.api.nvim_get_current_buf())
    local client = require('s0_sync.client')
    local owner = client.of_buffer(0)
    client.request_sync(owner, 's0-sync/flush', { folder = client.folder(owner) }, 10000)
  ]])
end

return {
  {
    'a file of an attached directory attaches, and the status line knows',
    attached({ ['a.txt'] = FIVE }, function(b)
      local editor = open(b, 'a.txt')
      wait.until_true('the buffer has a status', function()
        return editor:lua('return vim.b.s0_sync_status_dict ~= nil')
      end)
      equal('s0 ✓', editor:lua([[return require('s0_sync.status').component()]]), 'the component')
      equal({}, editor:said(), 'messages')
    end),
  },
  {
    'a file without a file type attaches too, and so does `nvim .`',
    attached({ ['notes'] = FIVE }, function(b)
      local editor = b:edit({ '.' })
      editor:wait_condition('in_sync')
      editor:command('edit notes')
      wait.until_true('the buffer is attached', function()
        return editor:lua([[return #vim.lsp.get_clients({ bufnr = 0 })]]) == 1
      end)
      equal(1, editor:lua('return #vim.lsp.get_clients()'), 'clients')
    end),
  },
  {
    'a plugin that is loaded late attaches what is open already',
    attached({ ['a.txt'] = FIVE }, function(b)
      local editor = b:edit({ '--noplugin', 'a.txt' })
      equal(0, editor:lua('return #vim.lsp.get_clients()'), 'clients at first')
      editor:command('runtime plugin/s0_sync.lua')
      editor:wait_condition('in_sync')
      wait.until_true('the buffer is attached', function()
        return editor:client() > 0
      end)
    end),
  },
  {
    'without autostart nothing starts until it is said, with the command or with vim.lsp.enable()',
    attached({ ['a.txt'] = FIVE, ['b.lua'] = 'return 1\n' }, function(b)
      local editor = b:edit({ 'a.txt' }, { vimrc = { 'vim.g.s0_sync = { autostart = false }' } })
      equal(0, editor:lua('return #vim.lsp.get_clients()'), 'clients at first')
      editor:command('S0Sync start')
      editor:wait_condition('in_sync')
      check(editor:client() > 0, 'the buffer is attached')
      if vim.fn.has('nvim-0.11') == 1 then
        local enabled = b:edit({ 'b.lua' }, {
          vimrc = { 'vim.g.s0_sync = { autostart = false }', "vim.lsp.enable('s0_sync')" },
        })
        enabled:wait_condition('in_sync')
        check(enabled:client() > 0, 'the buffer is attached')
      end
    end),
  },
  {
    'vim.lsp.enable() beside autostart gives one client, and vim.lsp.config() counts',
    attached({ ['b.lua'] = 'return 1\n' }, function(b)
      if vim.fn.has('nvim-0.11') == 0 then
        return
      end
      local editor = b:edit({ 'b.lua' }, {
        vimrc = {
          "vim.lsp.config('s0_sync', { init_options = { marker = 1 } })",
          "vim.lsp.enable('s0_sync')",
        },
      })
      editor:wait_condition('in_sync')
      equal(1, editor:lua('return #vim.lsp.get_clients()'), 'clients')
      equal(1, editor:lua('return vim.lsp.get_clients()[1].config.init_options.marker'), 'options')
    end),
  },
  {
    "an agent's edit appears within a second, without a key and without moving anything",
    attached({ ['a.txt'] = FIVE, ['b.txt'] = FIVE }, function(b)
      local editor = open(b, 'a.txt')
      editor:command('split b.txt')
      editor:command('4')
      local before = editor:lua(
        [[_G.moved = {}
        return { vim.fn.win_getid(), vim.fn.winnr('$'), vim.fn.tabpagenr('$'), vim.fn.getcurpos() }]]
      )
      b:agent_writes('b.txt', 'one\nTWO\nthree\nfour\nfive\n')
      editor:wait_hunks(1, 1)
      equal('one\nTWO\nthree\nfour\nfive\n', editor:text(), 'the text')
      equal({ '2 S0SyncChanged' }, editor:signs(), 'signs')
      equal({ 'sb_agent' }, editor:labels(), 'who wrote')
      equal(false, editor:lua('return vim.bo.modified'), 'unsaved')
      equal(
        before,
        editor:lua(
          [[return { vim.fn.win_getid(), vim.fn.winnr('$'), vim.fn.tabpagenr('$'), vim.fn.getcurpos() }]]
        ),
        'windows and cursor'
      )
      equal({}, editor:lua('return _G.moved'), 'events that move the focus')
      equal({}, editor:said(), 'messages')
      editor:command('undo')
      equal(FIVE, editor:text(), 'the text after undo')
    end),
  },
  {
    'one hunk is kept, another reverted, and both sides follow',
    attached({ ['a.txt'] = TEN }, function(b)
      local editor = open(b, 'a.txt')
      b:agent_writes('a.txt', (TEN:gsub('two', 'TWO'):gsub('nine', 'NINE')))
      editor:wait_hunks(2)
      editor:command('1')
      editor:command('S0Sync next')
      editor:command('S0Sync keep')
      editor:wait_hunks(1)
      equal({ '9 S0SyncChanged' }, editor:signs(), 'signs after Keep')
      editor:command('S0Sync next')
      editor:command('S0Sync revert')
      editor:wait_hunks(0)
      local result = (TEN:gsub('two', 'TWO'))
      bench.holds(b.user .. '/a.txt', result)
      bench.holds(b.agent .. '/a.txt', result)
      wait.until_true('the buffer follows', function()
        return editor:text() == result
      end)
      equal({}, editor:said(), 'messages')
    end),
  },
  {
    'a file, an agent and everything are kept or reverted at once',
    attached({ ['a.txt'] = TEN, ['b.txt'] = FIVE, ['c.txt'] = FIVE }, function(b)
      local editor = open(b, 'a.txt')
      for _, path in ipairs({ 'a.txt', 'b.txt', 'c.txt' }) do
        b:agent_writes(path, 'agent\n' .. bench.read(b.agent .. '/' .. path))
      end
      wait.until_true('three files wait', function()
        return editor:status().incoming == 3
      end)
      editor:wait_hunks(1)
      editor:command('S0Sync review')
      equal(3, editor:lua('return #vim.fn.getqflist()'), 'files in the list')
      editor:command('cclose')
      editor:command('S0Sync keep file')
      wait.until_true('two files wait', function()
        return editor:status().incoming == 2
      end)
      editor:command('S0Sync revert agent sb_agent')
      wait.until_true('no file waits', function()
        return editor:status().incoming == 0
      end)
      bench.holds(b.agent .. '/b.txt', FIVE)
      bench.holds(b.agent .. '/c.txt', FIVE)
      bench.holds(b.agent .. '/a.txt', 'agent\n' .. TEN)
    end),
  },
  {
    'unsaved text is never overwritten; what comes is held until it is taken, and undo leads back',
    attached({ ['a.txt'] = FIVE }, function(b)
      local editor = open(b, 'a.txt')
      type_without_saving(editor)
      local mine = editor:text()
      b:agent_writes('a.txt', FIVE .. 'agent\n')
      wait.until_true('the write is held', function()
        return editor:status().held == 1
      end)
      equal(mine, editor:text(), 'the text')
      equal(FIVE, bench.read(b.user .. '/a.txt'), 'the file')
      equal({}, editor:said(), 'messages')
      editor:command('S0Sync settle take')
      wait.until_true('the buffer has the incoming text', function()
        return editor:text() == FIVE .. 'agent\n'
      end)
      bench.holds(b.user .. '/a.txt', FIVE .. 'agent\n')
      editor:command('undo')
      equal(mine, editor:text(), 'the text after undo')
    end),
  },
  {
    'a held write comes by itself when the unsaved text is undone',
    attached({ ['a.txt'] = FIVE }, function(b)
      local editor = open(b, 'a.txt')
      type_without_saving(editor)
      b:agent_writes('a.txt', FIVE .. 'agent\n')
      wait.until_true('the write is held', function()
        return editor:status().held == 1
      end)
      editor:keys('u')
      wait.until_true('the buffer has the incoming text', function()
        return editor:text() == FIVE .. 'agent\n'
      end)
      editor:wait_hunks(1)
    end),
  },
  {
    'ten files written in a burst give one update',
    attached({ ['a.txt'] = FIVE }, function(b)
      local editor = open(b, 'a.txt')
      local function updates()
        return editor:lua('return _G.updates')
      end
      wait.until_true('the update of the start was given', function()
        return updates() > 0
      end)
      local before = updates()
      for i = 1, 10 do
        b:agent_writes(('n%d.txt'):format(i), FIVE)
      end
      wait.until_true('ten files wait', function()
        return editor:status().incoming == 10
      end)
      wait.until_true('the update is given', function()
        return updates() > before
      end)
      wait.never('a second update', function()
        return updates() > before + 1
      end, 1)
      equal({}, editor:said(), 'messages')
    end),
  },
  {
    'a restart of the sidecar keeps what was reviewed',
    attached({ ['a.txt'] = TEN }, function(b)
      local editor = open(b, 'a.txt')
      b:agent_writes('a.txt', (TEN:gsub('two', 'TWO'):gsub('nine', 'NINE')))
      editor:wait_hunks(2)
      editor:command('1')
      editor:command('S0Sync next')
      editor:command('S0Sync keep')
      editor:wait_hunks(1)
      local first = editor:client()
      editor:command('S0Sync restart')
      wait.until_true('another sidecar runs', function()
        return editor:client() > first
      end)
      -- Its first message about the file must not bring back what was kept.
      editor:lua([[
        local hunks, buf = require('s0_sync.hunks'), vim.api.nvim_get_current_buf()
        hunks.clear(buf)
        hunks.ask(buf)
      ]])
      editor:wait_hunks(1)
      equal({ '9 S0SyncChanged' }, editor:signs(), 'signs')
    end),
  },
  {
    'a sidecar that dies is started again by itself',
    attached({ ['a.txt'] = FIVE }, function(b)
      local editor = open(b, 'a.txt')
      local first = editor:client()
      for _, id in ipairs(b:processes()) do
        local command = bench.read(('/proc/%d/cmdline'):format(id)) or ''
        if command:find('s0%-sync%-lsp') and command:find('%-%-stdio') then
          vim.uv.kill(id, 'sigkill')
        end
      end
      wait.until_true('another sidecar runs', function()
        return editor:client() > first
      end)
      editor:wait_condition('in_sync')
      b:agent_writes('a.txt', FIVE .. 'agent\n')
      editor:wait_hunks(1)
    end),
  },
  {
    'compare shows the reviewed text beside the file, read-only',
    attached({ ['a.txt'] = FIVE }, function(b)
      local editor = open(b, 'a.txt')
      b:agent_writes('a.txt', 'agent\n' .. FIVE)
      editor:wait_hunks(1)
      editor:command('S0Sync compare')
      wait.until_true('two windows compare', function()
        return editor:lua([[
          local count = 0
          for _, window in ipairs(vim.api.nvim_tabpage_list_wins(0)) do
            count = count + (vim.wo[window].diff and 1 or 0)
          end
          return count]]) == 2
      end)
      equal('agent\n' .. FIVE, editor:text(), 'the file stays in front')
      editor:command('wincmd h')
      equal(FIVE, editor:text(), 'the reviewed text')
      equal(false, editor:lua('return vim.bo.modifiable'), 'modifiable')
    end),
  },
  {
    'a file that an agent removes stays readable in its buffer, and says so',
    attached({ ['a.txt'] = FIVE }, function(b)
      local editor = open(b, 'a.txt')
      vim.fn.delete(b.agent .. '/a.txt')
      wait.until_true('the file is gone', function()
        return not vim.uv.fs_stat(b.user .. '/a.txt')
      end)
      wait.until_true('the buffer says so', function()
        return editor:lua([[return #vim.api.nvim_buf_get_extmarks(
          0, vim.api.nvim_get_namespaces().s0_sync_buffers, 0, -1, {})]]) == 1
      end)
      equal(FIVE, editor:text(), 'the text')
      equal({}, editor:said(), 'messages')
    end),
  },
  {
    'from nothing to the first reverted hunk, with commands of the editor only',
    bench.test(bench.new, function(b)
      bench.write(b.user .. '/main.py', 'print("hello")\n')
      local editor = b:edit({ 'main.py' })
      editor:command('S0Sync attach')
      editor:wait_condition('in_sync', 60)
      editor:command([[S0Sync agent]])
      wait.until_true('a terminal is open', function()
        return editor:lua('return vim.bo.buftype') == 'terminal'
      end)
      local directory = editor:lua([[return vim.fn.getcwd(), nil]])
      check(directory ~= '', 'the terminal has a directory')
      editor:lua([[vim.api.nvim_chan_send(vim.bo.channel, 'echo "print(1)" >> main.py\n')]])
      editor:command('stopinsert')
      editor:command('wincmd p')
      editor:wait_hunks(1)
      equal('print("hello")\nprint(1)\n', editor:text(), 'the text')
      editor:command('2')
      editor:command('S0Sync revert')
      editor:wait_hunks(0)
      bench.holds(b.user .. '/main.py', 'print("hello")\n')
    end),
  },
  {
    'from the write of an agent to the marks on the screen: the median of 20',
    attached({ ['a.txt'] = FIVE }, function(b)
      local editor = open(b, 'a.txt')
      -- The editor itself takes the time at which the marks are there.
      editor:lua([[
        local hunks = require('s0_sync.hunks')
        local set = hunks.set
        hunks.set = function(buf, file)
          set(buf, file)
          local last = file.hunks[#file.hunks]
          _G.shown = { last and last['end'] or 0, vim.uv.hrtime() }
        end]])
      local times = {} ---@type number[]
      local text = FIVE
      for i = 1, 20 do
        text = text .. i .. '\n'
        local started = vim.uv.hrtime()
        b:agent_writes('a.txt', text)
        local shown = wait.until_true('line ' .. i .. ' is shown', function()
          local last = editor:lua('return _G.shown or { 0, 0 }')
          return last[1] == 5 + i and last[2] > started and last or nil
        end)
        times[i] = (shown[2] - started) / 1e6
      end
      table.sort(times)
      local median = (times[10] + times[11]) / 2
      b.figures[1] = ('from write to marks: median %.0f ms, longest %.0f ms'):format(
        median,
        times[20]
      )
      check(median < 1000, b.figures[1])
    end),
  },
}
