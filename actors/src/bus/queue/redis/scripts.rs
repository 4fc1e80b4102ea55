//! What Redis does in one step. KEYS[1] is the stream everywhere.

/// Puts a message in, unless it is there or there is no room. Answers how many were ever put in,
/// and whether this one was there; or -1 if there is no room, and -2 if the one that it has to
/// follow is not there.
///
/// KEYS: stream, number of messages ever, the last message's id, the message's id. ARGV: most
/// messages, dedupe time in ms, id, subject, headers, payload, the id before or nothing, whether
/// the oldest makes room.
pub(super) const PUT: &str = r"
if ARGV[3] ~= '' then
  local known = redis.call('GET', KEYS[4])
  if known then return {tonumber(known), 1} end
end
if ARGV[7] ~= '' and redis.call('GET', KEYS[3]) ~= ARGV[7] then return {-2, 0} end
local most, log = tonumber(ARGV[1]), ARGV[8] == '1'
if not log and redis.call('XLEN', KEYS[1]) >= most then return {-1, 0} end
redis.call('XADD', KEYS[1], '*', 'id', ARGV[3], 'subject', ARGV[4], 'headers', ARGV[5], 'payload', ARGV[6])
if log then redis.call('XTRIM', KEYS[1], 'MAXLEN', most) end
local number = redis.call('INCR', KEYS[2])
if number == 1 then
  -- The first, or the counter was evicted: the stream itself knows better.
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'entries-added' and info[i + 1] > 1 then
      number = info[i + 1]
      redis.call('SET', KEYS[2], number)
    end
  end
end
if ARGV[3] ~= '' then
  redis.call('SET', KEYS[4], number, 'PX', ARGV[2])
  redis.call('SET', KEYS[3], ARGV[3])
end
return {number, 0}
";

/// How many were ever put in. KEYS: stream, number of messages ever.
pub(super) const TAIL: &str = r"
local count = tonumber(redis.call('GET', KEYS[2]) or '0')
if count > 0 or redis.call('EXISTS', KEYS[1]) == 0 then return count end
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'entries-added' then return info[i + 1] end
end
return 0
";

/// Makes a group, and remembers it. KEYS: stream, groups. ARGV: group.
pub(super) const MAKE: &str = r"
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP') then return made end
redis.call('SADD', KEYS[2], ARGV[1])
return 1
";

/// Forgets a group; answers whether it was known. KEYS: stream, groups, its pauses. ARGV: group.
pub(super) const REMOVE: &str = r"
local known = redis.call('SREM', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[3])
if redis.call('EXISTS', KEYS[1]) == 0 then return known end
return math.max(known, redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1]))
";

/// How all groups stand: name, waiting, in flight, milliseconds since one of their members was
/// seen (-1: never), and the time in milliseconds.
pub(super) const STATUS: &str = r"
local all = {}
if redis.call('EXISTS', KEYS[1]) == 0 then return all end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local length = redis.call('XLEN', KEYS[1])
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local info = {}
  for i = 1, #group, 2 do info[group[i]] = group[i + 1] end
  local behind = info['lag']
  if type(behind) ~= 'number' then
    behind = #redis.call('XRANGE', KEYS[1], '(' .. info['last-delivered-id'], '+', 'COUNT', 100000)
  end
  local idle = -1
  for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], info['name'])) do
    for i = 1, #consumer, 2 do
      if consumer[i] == 'idle' and (idle < 0 or consumer[i + 1] < idle) then idle = consumer[i + 1] end
    end
  end
  all[#all + 1] = {info['name'], math.min(behind, length) + info['pending'], info['pending'], idle, now}
end
return all
";

/// Removes what all groups have handled, and members that are gone. A group that is known and not
/// there is made again at the oldest message, and nothing is removed.
///
/// KEYS: stream, groups. ARGV: after how many ms without a sign a member is gone.
pub(super) const TRIM: &str = r"
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local function before(a, b)
  local a1, a2 = string.match(a, '(%d+)-(%d+)')
  local b1, b2 = string.match(b, '(%d+)-(%d+)')
  a1, a2, b1, b2 = tonumber(a1), tonumber(a2), tonumber(b1), tonumber(b2)
  return a1 < b1 or (a1 == b1 and a2 < b2)
end
local least, there = nil, {}
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local info = {}
  for i = 1, #group, 2 do info[group[i]] = group[i + 1] end
  there[info['name']] = true
  for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], info['name'])) do
    local member = {}
    for i = 1, #consumer, 2 do member[consumer[i]] = consumer[i + 1] end
    if member['pending'] == 0 and member['idle'] > tonumber(ARGV[1]) then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[1], info['name'], member['name'])
    end
  end
  local at = info['last-delivered-id']
  local exclusive = true
  local pending = redis.call('XPENDING', KEYS[1], info['name'])
  if pending[1] > 0 and not before(at, pending[2]) then at, exclusive = pending[2], false end
  if exclusive then
    local ms, seq = string.match(at, '(%d+)-(%d+)')
    at = ms .. '-' .. string.format('%d', tonumber(seq) + 1)
  end
  if least == nil or before(at, least) then least = at end
end
local missing = false
for _, group in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  if not there[group] then
    redis.call('XGROUP', 'CREATE', KEYS[1], group, '0')
    missing = true
  end
end
if least == nil or missing then return 0 end
return redis.call('XTRIM', KEYS[1], 'MINID', least)
";

/// Takes over what others have had for too long, or what was to rest and has. Answers where to go
/// on, and entries with their number of deliveries.
///
/// KEYS: stream, pauses of the group. ARGV: group, member, ms that a delivery is good for, where
/// to begin, most entries.
pub(super) const CLAIM: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local group, member, good = ARGV[1], ARGV[2], tonumber(ARGV[3])
local claimed = redis.call('XAUTOCLAIM', KEYS[1], group, member, good, ARGV[4], 'COUNT', ARGV[5], 'JUSTID')
local taken = {}
for _, id in ipairs(claimed[2]) do
  local due = redis.call('ZSCORE', KEYS[2], id)
  local left = due and (tonumber(due) - now) or 0
  if left > 0 then
    redis.call('XCLAIM', KEYS[1], group, member, 0, id, 'IDLE', math.max(0, good - left), 'JUSTID')
  else
    if due then redis.call('ZREM', KEYS[2], id) end
    local entries = redis.call('XCLAIM', KEYS[1], group, member, 0, id)
    local pending = redis.call('XPENDING', KEYS[1], group, id, id, 1)
    if entries[1] and pending[1] then
      taken[#taken + 1] = {id, entries[1][2], pending[1][4]}
    end
  end
end
return {claimed[1], taken}
";

/// Lets a delivery become due after a while, if it is still this one: a member that is late takes
/// nothing back.
///
/// KEYS: stream, pauses of the group. ARGV: group, member, entry, number of deliveries, after how
/// many ms, ms that a delivery is good for.
pub(super) const DELAY: &str = r"
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)[1]
if not pending or pending[2] ~= ARGV[2] or pending[4] ~= tonumber(ARGV[4]) then return 0 end
local after, good = tonumber(ARGV[5]), tonumber(ARGV[6])
if after > good then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('ZADD', KEYS[2], now + after, ARGV[3])
end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'IDLE', math.max(0, good - after), 'JUSTID')
return 1
";
