-- Buffers and the disk: they follow what was applied, unsaved text is told, documents of the sidecar are shown.

local client = require('s0_sync.client')

local M = {}

local namespace = vim.api.nvim_create_namespace('s0_sync_buffers')

--- Buffers by the real path of their file, for those that were opened through a link.
local by_real_path = {} ---@type table<string, integer>
--- What was last told about unsaved text, by buffer.
local told_dirty = {} ---@type table<integer, boolean?>

--- The loaded buffer of a file. None is made, unlike `vim.uri_to_bufnr()` does.
---@param uri string
---@return integer?
function M.of_uri(uri)
  local path = vim.uri_to_fname(uri)
  local buf = vim.fn.bufexists(path) == 1 and vim.fn.bufadd(path) or by_real_path[path]
  if buf and vim.api.nvim_buf_is_valid(buf) and vim.api.nvim_buf_is_loaded(buf) then
    return buf
  end
end

--- Buffers whose changes are looked at.
local watched = {} ---@type table<integer, boolean>

--- `BufModifiedSet` is fired for the current buffer only; others are changed by commands and plugins.
---@param buf integer
local function watch(buf)
  if watched[buf] then
    return
  end
  local waiting = false
  local function tell()
    if waiting then
      return
    end
    waiting = true
    vim.schedule(function()
      waiting = false
      if vim.api.nvim_buf_is_loaded(buf) then
        M.tell_dirty(buf)
      end
    end)
  end
  watched[buf] = true
  vim.api.nvim_buf_attach(buf, false, {
    on_lines = tell,
    on_reload = tell,
    on_detach = function()
      watched[buf] = nil
    end,
  })
end

---@param buf integer
function M.attached(buf)
  local name = vim.api.nvim_buf_get_name(buf)
  -- Without it Neovim would ask at every write of an agent.
  vim.bo[buf].autoread = true
  by_real_path[vim.uv.fs_realpath(name) or name] = buf
  -- A sidecar that just started believes that all is saved.
  told_dirty[buf] = false
  M.tell_dirty(buf)
  watch(buf)
  require('s0_sync.state').changed()
end

--- Tells the sidecar whether a buffer has unsaved text; incoming writes to it are held meanwhile.
---@param buf integer
function M.tell_dirty(buf)
  local owner = client.of_buffer(buf)
  local dirty = vim.bo[buf].modified
  if owner and told_dirty[buf] ~= dirty then
    told_dirty[buf] = dirty
    client.notify(owner, 's0-sync/didChangeDirty', { uri = vim.uri_from_bufnr(buf), dirty = dirty })
  end
end

--- Lets a buffer follow its file on the disk. Undo still leads back. Unsaved text is never touched, and nobody is
--- asked anything.
---@param buf integer
function M.follow(buf)
  if vim.bo[buf].modified then
    return
  end
  vim.api.nvim_buf_clear_namespace(buf, namespace, 0, -1)
  -- Of a file that is gone Neovim would complain.
  local silence = vim.api.nvim_create_autocmd('FileChangedShell', {
    buffer = buf,
    callback = function()
      vim.v.fcs_choice = ''
    end,
  })
  local ok, err = pcall(vim.cmd.checktime, { args = { tostring(buf) }, mods = { silent = true } })
  pcall(vim.api.nvim_del_autocmd, silence)
  if not ok then
    client.say(tostring(err), vim.log.levels.WARN)
  end
end

--- Says in a buffer that its file was removed. Its text stays.
---@param buf integer
---@param actor? string
local function note_removed(buf, actor)
  vim.api.nvim_buf_clear_namespace(buf, namespace, 0, -1)
  local text = actor and ('removed by ' .. actor) or 'removed from the disk'
  vim.api.nvim_buf_set_extmark(buf, namespace, 0, 0, {
    virt_text = { { '  ' .. text, 'S0SyncDeleted' } },
    hl_mode = 'combine',
  })
end

--- Files were written or removed for the Volume.
---@param applied s0_sync.Applied
function M.applied(applied)
  for _, item in ipairs(applied.items) do
    local buf = M.of_uri(item.uri)
    if buf then
      M.follow(buf)
      if item.removed then
        note_removed(buf, item.actor)
      end
    end
  end
end

--- The name of the buffer of a document of the sidecar. Neovim before 0.11 knows a URI by its two slashes only.
---@param uri string
---@return string
local function document_name(uri)
  return (uri:gsub('^s0%-sync:/+', 's0-sync:///'))
end

--- The URI of such a buffer.
---@param buf integer
---@return string
local function document_uri(buf)
  local uri = vim.api.nvim_buf_get_name(buf):match('s0%-sync:/.*$') or ''
  return (uri:gsub('^s0%-sync:/+', 's0-sync:/'))
end

---@param buf integer
---@param text string
local function show_text(buf, text)
  local lines = vim.split(text, '\n', { plain = true })
  if #lines > 1 and lines[#lines] == '' then
    lines[#lines] = nil
  end
  vim.bo[buf].modifiable = true
  vim.api.nvim_buf_set_lines(buf, 0, -1, false, lines)
  vim.bo[buf].modified = false
  vim.bo[buf].modifiable = false
end

---@param uri string
---@return vim.lsp.Client?
local function owner_of_document(uri)
  local folder = vim.uri_decode(uri:match('[?&]folder=([^&]*)') or '')
  for _, candidate in ipairs(vim.lsp.get_clients({ name = client.name })) do
    if client.folder(candidate) == folder then
      return candidate
    end
  end
  return client.current()
end

--- Fills a buffer with the document that its name says; it cannot be changed.
---@param buf integer
function M.read_document(buf)
  local uri = document_uri(buf)
  vim.bo[buf].buftype = 'nofile'
  vim.bo[buf].swapfile = false
  vim.bo[buf].undolevels = -1
  local owner = owner_of_document(uri)
  local answer, err
  if owner then
    answer, err = client.request_sync(owner, 's0-sync/content', { uri = uri }, 5000)
  else
    err = 'no sidecar runs'
  end
  if err then
    client.say(('%s cannot be shown: %s'):format(uri, err), vim.log.levels.ERROR)
  end
  show_text(buf, answer and answer.text or '')
  vim.bo[buf].readonly = true
  local path = vim.uri_decode(uri:match('^s0%-sync:([^?]*)') or '')
  vim.bo[buf].filetype = vim.filetype.match({ buf = buf, filename = path }) or ''
end

--- The buffer of a document or file, loaded.
---@param uri string
---@return integer
function M.open(uri)
  local is_document = vim.startswith(uri, 's0-sync:')
  local buf = vim.fn.bufadd(is_document and document_name(uri) or vim.uri_to_fname(uri))
  vim.fn.bufload(buf)
  vim.bo[buf].buflisted = not is_document
  return buf
end

--- Documents of the sidecar are other ones now.
---@param uris string[]
function M.content_changed(uris)
  for _, buf in ipairs(vim.api.nvim_list_bufs()) do
    local uri = vim.api.nvim_buf_is_loaded(buf) and document_uri(buf)
    local owner = uri and vim.tbl_contains(uris, uri) and owner_of_document(uri)
    if uri and owner then
      client.request(owner, 's0-sync/content', { uri = uri }, function(err, answer)
        if not err and vim.api.nvim_buf_is_loaded(buf) then
          show_text(buf, answer.text)
          vim.cmd.diffupdate()
        end
      end)
    end
  end
end

return M
