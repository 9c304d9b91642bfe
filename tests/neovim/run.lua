-- Runs the tests in the Neovim that runs this: nvim --headless -u NONE -i NONE -l tests/neovim/run.lua [NAME…]
--
-- Each file of cases/ gives a list of { name, function }. With names, only tests whose file and name ("plugin: …")
-- contain one of them run. The last line is "N passed, N failed".

local here = vim.fs.dirname(debug.getinfo(1, 'S').source:sub(2))
package.path = here .. '/lib/?.lua;' .. package.path

local wanted = vim.list_slice(_G.arg, 1)
local version = tostring(vim.version()):match('^[%d.]+')
local passed, failed = 0, 0

---@param name string
---@return boolean
local function is_wanted(name)
  for _, word in ipairs(wanted) do
    if name:find(word, 1, true) then
      return true
    end
  end
  return #wanted == 0
end

local files = vim.fn.sort(vim.fn.glob(here .. '/cases/*.lua', false, true))
for _, file in ipairs(files) do
  for _, case in ipairs(dofile(file)) do
    local name, run = vim.fn.fnamemodify(file, ':t:r') .. ': ' .. case[1], case[2]
    if is_wanted(name) then
      local started = vim.uv.hrtime()
      local figures = {} ---@type string[]
      local ok, err = xpcall(run, debug.traceback, figures)
      if not ok then
        -- Editors, servers and other tests share two cores. What fails twice has failed; what fails once is told.
        io.write(('again  %s: %s\n%s\n'):format(version, name, tostring(err)))
        figures = {}
        ok, err = xpcall(run, debug.traceback, figures)
      end
      local seconds = (vim.uv.hrtime() - started) / 1e9
      passed, failed = passed + (ok and 1 or 0), failed + (ok and 0 or 1)
      io.write(('%s %s: %s (%.1f s)\n'):format(ok and 'ok    ' or 'FAILED', version, name, seconds))
      for _, figure in ipairs(figures) do
        io.write('       ' .. figure .. '\n')
      end
      if not ok then
        io.write(tostring(err) .. '\n')
      end
      io.flush()
    end
  end
end

io.write(('%d passed, %d failed\n'):format(passed, failed))
os.exit(failed == 0 and 0 or 1)
