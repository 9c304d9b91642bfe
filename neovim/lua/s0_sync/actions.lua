-- What the user does: each is a request to the sidecar, and what comes of it in the editor.

local buffers = require('s0_sync.buffers')
local client = require('s0_sync.client')
local hunks = require('s0_sync.hunks')
local state = require('s0_sync.state')

local M = {}

local WARN = vim.log.levels.WARN

---@param failures { path: string, why?: string, error?: string }[]
local function say_failures(failures)
  for _, failure in ipairs(failures) do
    client.say(('%s: %s'):format(failure.path, failure.why or failure.error), WARN)
  end
end

--- Lets every unmodified buffer of a directory follow the disk, after something was written here on request.
---@param owner vim.lsp.Client
local function follow_all(owner)
  for buf in pairs(owner.attached_buffers) do
    if vim.api.nvim_buf_is_loaded(buf) then
      buffers.follow(buf)
    end
  end
end

--- Shows two documents beside each other. The file that is looked at stays where it is.
---@param answer { left: string, right: string }
local function show_comparison(answer)
  local left, right = buffers.open(answer.left), buffers.open(answer.right)
  if right ~= vim.api.nvim_get_current_buf() then
    vim.cmd.tabnew()
    vim.bo.bufhidden = 'wipe'
    vim.api.nvim_win_set_buf(0, right)
  end
  local window = vim.api.nvim_get_current_win()
  vim.cmd.diffthis()
  vim.cmd('leftabove vertical split')
  vim.api.nvim_win_set_buf(0, left)
  vim.cmd.diffthis()
  vim.api.nvim_set_current_win(window)
end

---@type table<string, fun(owner: vim.lsp.Client, params: table, result: any)?>
local after = {
  keep = function(_, _, result)
    say_failures(result.refused)
  end,
  revert = function(owner, _, result)
    say_failures(result.refused)
    follow_all(owner)
  end,
  resolve = function(owner, _, result)
    for _, one in ipairs(result.results) do
      if type(one.error) == 'string' then
        say_failures({ one })
      elseif (tonumber(one.overlaps) or 0) > 0 then
        client.say(
          ('%s: both sides changed the same lines in %d places. Edit them, then :S0Sync resolve mark'):format(
            one.path,
            one.overlaps
          ),
          WARN
        )
      end
    end
    follow_all(owner)
  end,
  settleHeld = function(owner, _, result)
    if type(result.beside) == 'string' then
      client.say('the incoming version is in ' .. result.beside)
    end
    follow_all(owner)
  end,
  compare = function(_, _, result)
    show_comparison(result)
  end,
  attach = function(owner, _, result)
    client.say('attached to Volume ' .. result.volume)
    client.attach_all(owner)
  end,
  detach = function(owner)
    client.say('detached; the files and the Volume stay')
    client.stop(owner)
  end,
  flush = function(_, _, result)
    say_failures(result.unfinished)
    if result.done then
      client.say('everything has arrived')
    end
  end,
  snapshot = function(_, _, result)
    client.say('made snapshot ' .. result.id)
  end,
  fork = function(_, _, result)
    client.say('made Volume ' .. result.volume)
  end,
}

--- Sends a request, says what failed, and does in the editor what belongs to it.
---@param owner vim.lsp.Client
---@param name string
---@param params table
function M.perform(owner, name, params)
  client.request(owner, 's0-sync/' .. name, params, function(err, result)
    if err then
      client.say(err, vim.log.levels.ERROR)
    elseif after[name] then
      after[name](owner, params, result)
    end
  end)
end

--- Runs something with the sidecar of where the user is, or says that there is none.
---@param run fun(owner: vim.lsp.Client, folder: string)
function M.with_client(run)
  local owner = client.current()
  if owner then
    run(owner, client.folder(owner))
  else
    client.say('nothing is attached here; :S0Sync attach attaches the current directory', WARN)
  end
end

---@param name string A request that wants a folder.
---@param more? table
function M.in_folder(name, more)
  M.with_client(function(owner, folder)
    M.perform(owner, name, vim.tbl_extend('force', { folder = folder }, more or {}))
  end)
end

---@param folder string
---@param name? string
---@return s0_sync.Actor?
local function actor_named(folder, name)
  local known = state.folders[folder]
  for _, item in ipairs(known and known.incoming or {}) do
    for _, actor in ipairs(item.actors) do
      if actor.label == name then
        return actor
      end
    end
  end
end

---@param verdict 'keep'|'revert'
---@param what 'hunk'|'file'|'all'|'agent'
---@param agent? string The name of an agent, as it is shown.
function M.review(verdict, what, agent)
  if what == 'all' then
    M.in_folder(verdict)
    return
  elseif what == 'agent' then
    M.with_client(function(owner, folder)
      local actor = actor_named(folder, agent)
      if actor then
        M.perform(owner, verdict, { folder = folder, actor = actor.id })
      else
        client.say(('nothing of %s waits for review'):format(agent), WARN)
      end
    end)
    return
  end
  local buf = vim.api.nvim_get_current_buf()
  if verdict == 'revert' and vim.bo[buf].modified then
    client.say('this buffer has unsaved text; save it first', WARN)
    return
  end
  M.with_client(function(owner)
    local file = state.hunks[buf]
    local choice = { uri = vim.uri_from_bufnr(buf), version = file and file.version }
    if what == 'hunk' then
      local hunk = hunks.at_cursor()
      if not hunk then
        client.say('no hunk at the cursor')
        return
      end
      choice.hunk = hunk.id
    end
    M.perform(owner, verdict, choice)
  end)
end

--- What a command about one path means: the path that was named, or the file of the current buffer.
---@param folder string
---@param kind 'conflicts'|'held'
---@param path? string
---@return s0_sync.Conflict|s0_sync.Held|nil
function M.item_at(folder, kind, path)
  local here = vim.api.nvim_get_current_buf()
  for _, item in ipairs((state.folders[folder] or {})[kind] or {}) do
    if item.path == path or (not path and buffers.of_uri(item.uri) == here) then
      return item
    end
  end
end

--- Shows the current file beside the other version of it: in a conflict theirs, of a held write the incoming one, else
--- what was reviewed last.
function M.compare()
  local uri = vim.uri_from_bufnr(0)
  M.with_client(function(owner)
    M.perform(owner, 'compare', { uri = uri })
  end)
end

---@param way s0_sync.Way
---@param path? string `all` for all.
---@param name? string
function M.resolve(way, path, name)
  M.with_client(function(owner, folder)
    local paths = {} ---@type string[]
    if path ~= 'all' then
      local conflict = M.item_at(folder, 'conflicts', path)
      if not conflict then
        client.say(('%s is not in conflict'):format(path or 'this file'), WARN)
        return
      end
      paths = { conflict.path }
    end
    M.perform(owner, 'resolve', { folder = folder, paths = paths, way = way, name = name })
  end)
end

---@param way s0_sync.HeldWay
---@param path? string
function M.settle(way, path)
  M.with_client(function(owner, folder)
    local held = M.item_at(folder, 'held', path) --[[@as s0_sync.Held?]]
    if not held then
      client.say(('nothing incoming is held for %s'):format(path or 'this file'), WARN)
      return
    end
    local buf = buffers.of_uri(held.uri)
    if way == 'take' and buf and vim.bo[buf].modified then
      M.take_into_buffer(owner, folder, held, buf)
      return
    end
    M.perform(owner, 'settleHeld', { folder = folder, path = held.path, way = way })
  end)
end

--- Takes an incoming write where the buffer has unsaved text: the text is replaced in the buffer, so that undo leads
--- back to it, and the write comes when the buffer is as the file is.
---@param owner vim.lsp.Client
---@param folder string
---@param held s0_sync.Held
---@param buf integer
function M.take_into_buffer(owner, folder, held, buf)
  local tick = vim.api.nvim_buf_get_changedtick(buf)
  local params = { folder = folder, path = held.path, way = 'take' }
  client.request(owner, 's0-sync/settleHeld', params, function(err)
    if err then
      client.say(err, vim.log.levels.ERROR)
    elseif vim.api.nvim_buf_get_changedtick(buf) ~= tick then
      client.say(held.path .. ' was edited meanwhile; the incoming version is on the disk', WARN)
    else
      M.load_from_disk(buf)
    end
  end)
end

--- Lets a buffer's unsaved text go in favour of its file. Undo leads back to it. Where the file comes a little later,
--- the buffer follows then.
---@param buf integer
function M.load_from_disk(buf)
  vim.bo[buf].modified = false
  buffers.tell_dirty(buf)
  buffers.follow(buf)
end

--- Attaches the current directory, and starts the sidecar that does it.
---@param volume? string
function M.attach(volume)
  local directory = vim.fn.getcwd()
  local owner = client.start(client.root_of(directory) or directory)
  if not owner then
    return
  end
  M.when_ready(owner, function()
    M.perform(owner, 'attach', { folder = client.folder(owner), volume = volume })
  end)
end

--- Starts syncing of an attached directory, and its sidecar first where none runs.
function M.start()
  local owner = client.current()
  local root = client.root_of(vim.fn.getcwd())
  if not owner and root then
    owner = client.start(root)
  end
  if not owner then
    M.with_client(function() end)
    return
  end
  M.when_ready(owner, function()
    M.perform(owner, 'start', { folder = client.folder(owner) })
  end)
end

function M.restart()
  M.with_client(function(owner)
    client.restart(owner)
  end)
end

--- Runs something as soon as a sidecar has introduced itself.
---@param owner vim.lsp.Client
---@param run fun()
function M.when_ready(owner, run)
  if owner.initialized then
    run()
  else
    vim.defer_fn(function()
      if vim.lsp.get_client_by_id(owner.id) then
        M.when_ready(owner, run)
      end
    end, 20)
  end
end

--- Opens a terminal in a directory of its own, attached to the same Volume as a sandbox.
---@param command string[]
function M.agent(command)
  M.with_client(function(owner, folder)
    client.request(owner, 's0-sync/agent', { folder = folder }, function(err, agent)
      if err then
        client.say(err, vim.log.levels.ERROR)
        return
      end
      local run = #command > 0 and command or require('s0_sync.config').get().agent_command
      vim.cmd('botright new')
      local options = { cwd = agent.directory, env = { S0_SANDBOX_ID = agent.sandbox } }
      if vim.fn.has('nvim-0.11') == 1 then
        options.term = true
        vim.fn.jobstart(run or vim.o.shell, options)
      else
        vim.fn.termopen(run or vim.o.shell, options)
      end
      vim.cmd.startinsert()
    end)
  end)
end

---@param name string The id of a snapshot, or its name.
function M.restore(name)
  M.with_client(function(owner, folder)
    client.request(owner, 's0-sync/snapshots', { folder = folder }, function(err, answer)
      local found ---@type string?
      for _, snapshot in ipairs(answer and answer.snapshots or {}) do
        if snapshot.id == name or snapshot.name == name then
          found = snapshot.id
        end
      end
      if err or not found then
        client.say(err or ('there is no snapshot named ' .. name), vim.log.levels.ERROR)
        return
      end
      M.perform(owner, 'restore', { folder = folder, snapshot = found })
    end)
  end)
end

function M.log()
  M.with_client(function(owner, folder)
    client.request(owner, 's0-sync/log', { folder = folder }, function(err, answer)
      if err then
        client.say(err, vim.log.levels.ERROR)
      else
        vim.cmd.tabedit(vim.fn.fnameescape(answer.file))
      end
    end)
  end)
end

return M
