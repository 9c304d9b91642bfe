-- Checks, and waiting with a deadline. `S0_TEST_PATIENCE=3` makes every deadline three times as far.

local M = {}

M.patience = tonumber(vim.env.S0_TEST_PATIENCE or '1')

---@param condition any
---@param said string
function M.check(condition, said)
  if not condition then
    error('check failed: ' .. said, 2)
  end
end

---@param expected any
---@param found any
---@param what string
function M.equal(expected, found, what)
  if not vim.deep_equal(expected, found) then
    error(('%s: expected %s, found %s'):format(what, vim.inspect(expected), vim.inspect(found)), 2)
  end
end

--- Waits until the condition gives something true, and gives that.
---@generic T
---@param what string
---@param condition fun(): T
---@param seconds? number
---@return T
function M.until_true(what, condition, seconds)
  local value ---@type any
  local limit = (seconds or 20) * M.patience
  local done = vim.wait(limit * 1000, function()
    value = condition()
    return value ~= nil and value ~= false
  end, 5)
  if not done then
    error(('after %g s still not: %s (last seen: %s)'):format(limit, what, vim.inspect(value)), 2)
  end
  return value
end

--- Fails when the condition becomes true within a time: for what must never happen.
---@param what string
---@param condition fun(): any
---@param seconds number
function M.never(what, condition, seconds)
  if vim.wait(seconds * 1000, function()
    return condition() and true or false
  end, 10) then
    error('it happened: ' .. what, 2)
  end
end

return M
