-- A sidecar that says what a unit test tells it to, inside the editor under test: loaded by its vimrc.

---@type { method: string, params: any }[]
_G.sent = {}
--- What it answers, by method.
---@type table<string, any>
_G.answers = {
  initialize = { capabilities = { textDocumentSync = { openClose = true, change = 1 } } },
  ['s0-sync/state'] = { folders = {} },
}

--- Methods that get no answer, yet.
---@type table<string, boolean>
_G.silent = {}

--- The parameters of all messages of a method.
---@param method string
---@return any[]
function _G.sent_of(method)
  local found = {}
  for _, message in ipairs(_G.sent) do
    if message.method == method then
      found[#found + 1] = message.params
    end
  end
  return found
end

---@param condition string
---@return table
function _G.folder_state(condition)
  return {
    folder = vim.uri_from_fname(vim.fn.getcwd()),
    condition = condition,
    conflicts = {},
    held = {},
    incoming = {},
    reviewed = {},
    problems = {},
  }
end

require('s0_sync.config').get().cmd = function(dispatchers)
  local closing, last = false, 0
  --- Says something as the sidecar would.
  _G.tell = dispatchers.notification
  _G.ask = dispatchers.server_request
  _G.die = function()
    closing = true
    dispatchers.on_exit(1, 9)
  end
  return {
    request = function(method, params, callback)
      table.insert(_G.sent, { method = method, params = params })
      last = last + 1
      vim.schedule(function()
        if _G.silent[method] then
          return
        end
        callback(nil, _G.answers[method] or vim.NIL)
      end)
      return true, last
    end,
    notify = function(method, params)
      table.insert(_G.sent, { method = method, params = params })
      if method == 'exit' then
        closing = true
        dispatchers.on_exit(0, 0)
      end
      return true
    end,
    is_closing = function()
      return closing
    end,
    terminate = function()
      closing = true
    end,
  }
end
