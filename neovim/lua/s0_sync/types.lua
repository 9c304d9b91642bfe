---@meta

-- The messages of protocol.md, "JSON-RPC with the editors", as far as this plugin reads them.

---@alias s0_sync.Condition 'detached'|'stopped'|'starting'|'in_sync'|'syncing'|'blocked'|'offline'|'halted'
---@alias s0_sync.Way 'keep_mine'|'take_theirs'|'keep_both'|'merge'|'mark'|'ignore'|'rename'
---@alias s0_sync.HeldWay 'take'|'discard'|'keep_both'

---@class s0_sync.Actor
---@field id string
---@field label string

---@class s0_sync.FolderState
---@field folder string
---@field condition s0_sync.Condition
---@field message? string
---@field root? string
---@field volume? string
---@field replica? string
---@field sandbox? string
---@field server? string
---@field pending? { uploads: integer, downloads: integer }
---@field conflicts s0_sync.Conflict[]
---@field held s0_sync.Held[]
---@field incoming s0_sync.Item[]
---@field reviewed s0_sync.Reviewed[]
---@field problems { path: string, uri: string, why: string }[]

---@class s0_sync.Conflict
---@field path string
---@field uri string
---@field reason string
---@field message string
---@field status 'open'|'ignored'
---@field other? string
---@field suggestion? string
---@field time integer
---@field ways s0_sync.Way[]

---@class s0_sync.Held
---@field path string
---@field uri string
---@field why 'unsaved'|'guarded'
---@field written? boolean
---@field actor? string
---@field kind 'write'|'remove'
---@field ways s0_sync.HeldWay[]

---@class s0_sync.Item
---@field path string
---@field uri string
---@field kind 'created'|'changed'|'deleted'|'renamed'|'mode'|'whole'
---@field from? string
---@field actors s0_sync.Actor[]
---@field hunks integer
---@field added integer
---@field removed integer
---@field time integer

---@class s0_sync.Reviewed
---@field path string
---@field uri string
---@field actors s0_sync.Actor[]
---@field verdict 'kept'|'reverted'
---@field time integer

---@class s0_sync.Applied
---@field folder string
---@field items { uri: string, removed: boolean, actor?: string }[]

---@class s0_sync.FileHunks
---@field uri string
---@field documentVersion integer
---@field version string
---@field hunks s0_sync.Hunk[]

---@class s0_sync.Hunk
---@field id string
---@field kind 'added'|'changed'|'deleted'
---@field start integer
---@field end integer
---@field before string[]
---@field authors { start: integer, end: integer, actor: s0_sync.Actor, time: integer }[]
---@field actors s0_sync.Actor[]
---@field time integer

---@class s0_sync.Choice
---@field uri? string
---@field hunk? string
---@field version? string
---@field folder? string
---@field actor? string

---@class s0_sync.Settled
---@field done integer
---@field refused { path: string, why: string }[]

---@class s0_sync.Resolved
---@field results { path: string, overlaps?: integer, error?: string }[]
