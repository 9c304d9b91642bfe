-- Tests with a service, an attached directory and an agent's directory.

local bench = require('bench')

local M = {}

--- A test where a user and an agent are attached to one Volume that holds these files.
---@param files table<string, string>
---@param run fun(b: Bench)
function M.attached(files, run)
  return bench.test(function()
    return bench.attached(files)
  end, run)
end

--- An editor with a file, attached and in sync.
---@param b Bench
---@param path string
---@param options? table
---@return Editor
function M.open(b, path, options)
  local editor = b:edit({ path }, options)
  editor:wait_condition('in_sync')
  return editor
end

return M
