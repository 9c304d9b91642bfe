-- Conflicts, from the first message to each way out.

local bench = require('bench')
local place = require('place')
local wait = require('wait')
local equal = wait.equal

local FIVE = 'one\ntwo\nthree\nfour\nfive\n'

--- Makes a conflict at a path: both sides write while the user's replica is away.
---@param b Bench
---@param path string
---@param mine string
---@param theirs string
local function make_conflict(b, path, mine, theirs)
  b:s0({ 'sync', 'stop' })
  b:agent_writes(path, theirs)
  b:s0({ 'sync', 'flush' }, { cwd = b.agent })
  bench.write(b.user .. '/' .. path, mine)
  b:s0({ 'sync', 'start', '--no-wait' })
end

--- Runs the code action whose kind or title contains a word, as `gra` would.
---@param editor Editor
---@param word string
local function quick_fix(editor, word)
  local titles = {}
  wait.until_true('there is a quick fix ' .. word, function()
    titles = editor:lua(
      [[
      local client = vim.lsp.get_clients({ name = 's0_sync' })[1]
      local params = vim.lsp.util.make_range_params(0, client.offset_encoding)
      params.context = { diagnostics = {}, triggerKind = 1 }
      local answers = vim.lsp.buf_request_sync(0, 'textDocument/codeAction', params, 2000)
      local titles = {}
      for _, answer in pairs(answers or {}) do
        for _, action in ipairs(answer.result or {}) do table.insert(titles, action.title) end
      end
      return titles
    ]],
      word
    )
    for _, title in ipairs(titles) do
      if title:find(word, 1, true) then
        return true
      end
    end
  end, 10)
  editor:lua(
    [[
    local word = ...
    vim.lsp.buf.code_action({
      apply = true,
      filter = function(action) return action.title:find(word, 1, true) ~= nil end,
    })
  ]],
    word
  )
end

return {
  {
    'a conflict is a diagnostic and in the quickfix list, is told once, and each quick fix settles one',
    place.attached({ ['a.txt'] = FIVE }, function(b)
      local editor = place.open(b, 'a.txt')
      local mine, theirs = 'MINE\n' .. FIVE, FIVE .. 'THEIRS\n'
      local expected = {
        { 'Keep mine', mine, mine },
        { 'Take theirs', theirs, theirs },
        { 'Keep both', theirs, theirs },
        { 'Merge', 'MINE\n' .. FIVE .. 'THEIRS\n', 'MINE\n' .. FIVE .. 'THEIRS\n' },
        { 'Leave both sides as they are', mine, theirs },
      }
      for number, case in ipairs(expected) do
        local title, here, there = case[1], case[2], case[3]
        bench.write(b.user .. '/a.txt', FIVE)
        b:s0({ 'sync', 'flush' })
        b:s0({ 'sync', 'flush' }, { cwd = b.agent })
        editor:command('checktime')
        editor:lua('_G.said = {}')
        make_conflict(b, 'a.txt', mine, theirs)
        wait.until_true('the conflict is known', function()
          return (editor:status() or {}).conflicts == 1
        end)
        wait.until_true('there is a diagnostic', function()
          return editor:lua([[
            local found = vim.diagnostic.get(0)
            return #found > 0 and found[1].source == 's0-sync' ]])
        end)
        wait.until_true('the buffer follows', function()
          editor:command('checktime')
          return editor:text() == mine
        end)
        editor:command('S0Sync conflicts')
        equal(1, editor:lua('return #vim.fn.getqflist()'), 'conflicts in the list')
        editor:command('cclose')
        wait.until_true('it was said that uploads wait', function()
          return #editor:said() > 0
        end, 5)
        equal(1, #editor:said(), 'messages for conflict ' .. number)
        quick_fix(editor, title)
        wait.until_true('the conflict is settled by ' .. title, function()
          return (editor:status() or {}).conflicts == 0
        end)
        bench.holds(b.user .. '/a.txt', here)
        bench.holds(b.agent .. '/a.txt', there)
        wait.until_true('the buffer has it', function()
          return editor:text() == here
        end)
        wait.until_true('the diagnostic is gone', function()
          return editor:lua('return #vim.diagnostic.get(0)') == 0
        end)
      end
    end),
  },
}
