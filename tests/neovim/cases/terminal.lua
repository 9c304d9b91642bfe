-- A real terminal: what the user sees on the screen.

local bench = require('bench')
local wait = require('wait')

local FIVE = 'one\ntwo\nthree\nfour\nfive\n'

return {
  {
    'the screen shows signs, names and the status line, and what was there before on demand',
    bench.test(function()
      return bench.attached({ ['a.txt'] = FIVE })
    end, function(b)
      local terminal = b:terminal(
        { 'a.txt' },
        { [[vim.o.statusline = "%f %{v:lua.require's0_sync.status'.component()}"]] }
      )
      terminal:shows('a.txt s0 ✓')
      b:agent_writes('a.txt', 'one\nTWO\nthree\nfive\n')
      terminal:shows('┃ TWO +sb_agent')
      terminal:shows('five +sb_agent deleted 1 line')
      terminal:shows('a.txt s0 ✓ 1 to review 2 hunks')
      wait.check(not terminal:screen():find('Press ENTER', 1, true), 'nothing asks for a key')
      terminal:types(':S0Sync before', 'Enter')
      terminal:shows('\n +two')
      terminal:types(':2', 'Enter', ':S0Sync revert', 'Enter')
      terminal:shows('a.txt s0 ✓ 1 to review 1 hunk\n')
      wait.check(terminal:screen():find('\n +two\n'), terminal:screen())
      b.figures[1] = 'the screen at the end:\n' .. terminal:screen():gsub('\n~', '')
    end),
  },
}
