"""The Lua scripts that run in Redis.

A channel is one stream, its *log*. An entry holds the publications of one turn of a node. Its id is
``<epoch>-<last offset>``, so the ids of all epochs are in order, and one range reads from any position. Its fields are

- ``f``: the fence, which is the run of the server (``master_replid``) in which the entry was written
- ``p``: the epochs before, newest first, each as ``<epoch>-<last valid offset>``
- ``n``: how many events it has, 0 for the first entry of an epoch if that was begun without an event
- ``t``: the time in milliseconds, ``z``: the bytes of all entries up to this one, ``k``: the token of its writer
- ``b``: the events, as ``wire.encode_events`` returns them

If a server continues from an old copy of its data, its newest entry has another fence than the server. Then the next
epoch begins, and notes how far the one before was valid. Without the fence, the offsets that were lost would be given
a second time in the same epoch, and no client could notice.
"""

from hashlib import sha1

from msgspec import Struct

MAX_FORMER_EPOCHS = 8
"""Former epochs that an entry names. Clients of older ones receive ``recovered=no``."""

REST_SECONDS = 3600
"""How long a log is kept after its newest event has expired, because its last entry knows epoch and offset. Nodes that
have the channel open renew this."""

KEY_MEMORY_SECONDS = 600
"""How long the key of a publication is remembered."""


class Script(Struct, frozen=True):
    """A Lua script. ``sha`` is what EVALSHA calls it by."""

    text: bytes
    sha: bytes


def _script(*parts: str) -> Script:
    constants = f"local MAX_FORMER_EPOCHS, REST_SECONDS = {MAX_FORMER_EPOCHS}, {REST_SECONDS}\n"
    constants += f"local KEY_MEMORY_SECONDS = {KEY_MEMORY_SECONDS}\n"
    text = "".join((constants, *parts)).encode()
    return Script(text, sha1(text).hexdigest().encode())


_LOG = """\
local log = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function text(number)
    return string.format('%.0f', number)
end

local function parse(id)
    local dash = string.find(id, '-', 1, true)
    return string.sub(id, 1, dash - 1), tonumber(string.sub(id, dash + 1))
end

local function newest()
    return redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
end

-- The place after the newest entry, in the epoch that holds under this fence.
local function head(fence)
    local last, fresh = newest(), clock[1] * 1000000 + clock[2]
    if not last then
        return {epoch = text(fresh), offset = 0, chain = '', time = 0, total = 0, is_new = true}
    end
    local epoch, offset = parse(last[1])
    local fields = last[2]
    local place = {epoch = epoch, offset = offset, chain = fields[4], time = tonumber(fields[8]), is_new = false}
    place.total = tonumber(fields[10])
    if fields[2] ~= fence then
        place.is_new = true
        place.epoch = text(math.max(fresh, tonumber(epoch) + 1))
        place.chain = last[1]
        local links = 1
        for link in string.gmatch(fields[4], '[^,]+') do
            if links < MAX_FORMER_EPOCHS then
                place.chain = place.chain .. ',' .. link
            end
            links = links + 1
        end
    end
    return place
end

local function add(place, fence, count, token, events)
    place.time = math.max(place.time, now)
    place.offset = place.offset + count
    place.total = place.total + #events
    redis.call('XADD', log, place.epoch .. '-' .. text(place.offset), 'f', fence, 'p', place.chain, 'n', count,
        't', text(place.time), 'z', text(place.total), 'k', token, 'b', events)
end

-- Drop entries that are too old or too many, but never the newest entry.
local function trim(place, events, bytes, age)
    local function is_surplus(entry)
        local _, last = parse(entry[1])
        local fields = entry[2]
        return last <= place.offset - events or place.total - tonumber(fields[10]) >= bytes
            or tonumber(fields[8]) < now - age
    end
    local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)
    for _ = 1, 16 do
        if not is_surplus(oldest[1]) then
            return
        end
        oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 9)
        local keep = #oldest
        for number, entry in ipairs(oldest) do
            if not is_surplus(entry) then
                keep = number
                break
            end
        end
        if keep == 1 then
            return
        end
        redis.call('XTRIM', log, 'MINID', '=', oldest[keep][1])
        oldest = {oldest[keep]}
    end
end

local function rest(age)
    redis.call('EXPIRE', log, math.ceil(age / 1000) + REST_SECONDS)
end
"""

PUBLISH = _script(
    _LOG,
    """
-- ARGV: fence, topic, node, events kept, bytes kept, milliseconds kept, count, token, since, events.
-- KEYS[2], if given, remembers the offset of the first publication with a key.
-- since: empty, or the time before which an entry with this token cannot have been written by a former attempt.
-- Returns the offset of the first event, epoch and time; an empty epoch if the events were published before,
-- offset 0 if that is unknown.
if KEYS[2] then
    local known = redis.call('GET', KEYS[2])
    if known then
        return {tonumber(known), '', '0'}
    end
end
local fence, token, since, events = ARGV[1], ARGV[8], ARGV[9], ARGV[10]
if since ~= '' then
    local from, is_complete, before = '+', false, 0
    repeat
        local entries = redis.call('XREVRANGE', log, from, '-', 'COUNT', 8)
        for _, entry in ipairs(entries) do
            local epoch, last = parse(entry[1])
            local fields = entry[2]
            before = last - tonumber(fields[6])
            if fields[12] == token then
                return {before + 1, epoch, fields[8]}
            end
            if tonumber(fields[8]) < tonumber(since) then
                is_complete = true
                break
            end
            from = '(' .. entry[1]
        end
    until is_complete or #entries < 8
    if not is_complete and before > 0 then
        return {0, '', '0'}
    end
end
local place, kept, bytes, age = head(fence), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local count, first, total = tonumber(ARGV[7]), place.offset + 1, place.total
add(place, fence, count, token, events)
-- Looking at the oldest entries costs as much as the rest, so it is done for about every 64th event or 64 KiB.
if math.floor(place.offset / 64) > math.floor((first - 1) / 64)
        or math.floor(place.total / 65536) > math.floor(total / 65536) then
    trim(place, kept, bytes, age)
end
rest(age)
if KEYS[2] then
    redis.call('SET', KEYS[2], text(first), 'EX', KEY_MEMORY_SECONDS)
end
redis.call('PUBLISH', ARGV[2], 'E' .. place.epoch .. ' ' .. text(first) .. ' ' .. text(place.time) .. ' ' .. ARGV[3]
    .. '\\n' .. events)
return {first, place.epoch, text(place.time)}
""",
)

OPEN = _script(
    _LOG,
    """
-- ARGV: fence, events kept, bytes kept, milliseconds kept, bytes of the tail, epoch and offset that the node has.
-- Begins an epoch if that is due, so that a position which is given to a client stays valid.
-- Returns epoch, offset, the epochs before, the time before the tail, and the tail, newest first: first offset, count,
-- time and events of each entry. The tail has only the events after the position of the node, if the epoch is the same.
local place = head(ARGV[1])
local kept, bytes, age, limit = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
if place.is_new then
    local time = place.time
    add(place, ARGV[1], 0, '', '')
end
trim(place, kept, bytes, age)
rest(age)
local after = -1
if ARGV[6] == place.epoch then
    after = tonumber(ARGV[7])
end
local tail, size, before, from, is_complete = {}, 0, '0', '+', place.offset <= after
while not is_complete do
    local entries = redis.call('XREVRANGE', log, from, '-', 'COUNT', 8)
    for _, entry in ipairs(entries) do
        local _, last = parse(entry[1])
        local fields = entry[2]
        local count = tonumber(fields[6])
        if last <= after then
            is_complete = true
            break
        end
        if count > 0 then
            if size >= limit or last <= place.offset - kept or tonumber(fields[8]) < now - age then
                before = fields[8]
                is_complete = true
                break
            end
            tail[#tail + 1] = {last - count + 1, count, fields[8], fields[14]}
            size = size + #fields[14]
        end
        from = '(' .. entry[1]
    end
    is_complete = is_complete or #entries < 8
end
return {place.epoch, place.offset, place.chain, before, tail}
""",
)

READ = _script(
    _LOG,
    """
-- ARGV: epoch, offset, milliseconds kept, bytes.
-- Returns the entries after the position, oldest first; the first one can begin before it.
local last = newest()
local epoch, after, age, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if not last then
    return {}
end
local current, offset = parse(last[1])
if current ~= epoch or offset <= after then
    return {}
end
local start = epoch
for link in string.gmatch(last[2][4], '[^,]+') do
    local former, valid = parse(link)
    if after < valid then
        start = former
    end
end
local found, size, from = {}, 0, start .. '-' .. text(after + 1)
repeat
    local entries = redis.call('XRANGE', log, from, '+', 'COUNT', 8)
    for _, entry in ipairs(entries) do
        local _, to = parse(entry[1])
        local fields = entry[2]
        local count = tonumber(fields[6])
        if count > 0 and tonumber(fields[8]) >= now - age then
            found[#found + 1] = {to - count + 1, count, fields[8], fields[14]}
            size = size + #fields[14]
            if size >= limit then
                return found
            end
        end
        from = '(' .. entry[1]
    end
until #entries < 8
return found
""",
)

FIND = _script(
    _LOG,
    """
-- ARGV: epoch, time, milliseconds kept.
-- Returns the offset of the newest entry before the time that is kept, or 0. Times never decrease: searches by halves.
local last = newest()
local epoch, time, age = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if not last then
    return 0
end
local current, head = parse(last[1])
if current ~= epoch then
    return 0
end
local function following(after)
    local start = epoch
    for link in string.gmatch(last[2][4], '[^,]+') do
        local former, valid = parse(link)
        if after < valid then
            start = former
        end
    end
    local from = start .. '-' .. text(after + 1)
    repeat
        local entries = redis.call('XRANGE', log, from, '+', 'COUNT', 8)
        for _, entry in ipairs(entries) do
            local _, to = parse(entry[1])
            local published = tonumber(entry[2][8])
            if tonumber(entry[2][6]) > 0 and published >= now - age then
                return to, published
            end
            from = '(' .. entry[1]
        end
    until #entries < 8
end
local older, newer = 0, head
while older < newer do
    local middle = math.floor((older + newer) / 2)
    local to, published = following(middle)
    if to and published < time then
        older = to
    else
        newer = middle
    end
end
return older
""",
)

CHANGE_MEMBERS = _script(
    """\
-- KEYS: the members of a node in a channel (id to nick), the channels in which the node has members.
-- ARGV: topic, channel, then operation, id and nick of each change: + join, = rename, - leave,
-- * list without a report, ! report a leave in any case. Changes that were made before are not reported again.
local reports = {}
for number = 3, #ARGV, 3 do
    local operation, id, nick = ARGV[number], ARGV[number + 1], ARGV[number + 2]
    if operation == '-' or operation == '!' then
        if redis.call('HDEL', KEYS[1], id) == 1 or operation == '!' then
            reports[#reports + 1] = '-' .. id .. ' ' .. nick
        end
    elseif operation ~= '=' or redis.call('HEXISTS', KEYS[1], id) == 1 then
        if redis.call('HSET', KEYS[1], id, nick) == 1 and operation == '+' then
            reports[#reports + 1] = '+' .. id .. ' ' .. nick
        end
    end
end
if redis.call('EXISTS', KEYS[1]) == 1 then
    redis.call('SADD', KEYS[2], ARGV[2])
else
    redis.call('SREM', KEYS[2], ARGV[2])
end
if #reports > 0 then
    redis.call('PUBLISH', ARGV[1], 'P' .. table.concat(reports, '\\n'))
end
return 1
"""
)

LIST_MEMBERS = _script(
    """\
-- KEYS: the leases of all nodes. ARGV: the prefix of the keys of members, channel.
-- Returns the ids and nicks of the members of all nodes.
local members = {}
for _, node in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    members[#members + 1] = redis.call('HGETALL', ARGV[1] .. node .. ':' .. ARGV[2])
end
return members
"""
)

RENEW_LEASE = _script(
    """\
-- KEYS: the leases of all nodes, the registry. ARGV: node, milliseconds, random name for a new registry.
-- Returns the name of the registry, whether the node was registered, and the nodes whose leases have ended.
-- If no node has renewed its lease for half of the time, the server was away, and no lease ends.
-- The end 0 marks a node that is being removed: it must register under another name.
local clock, lease = redis.call('TIME'), tonumber(ARGV[2])
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('HSETNX', KEYS[2], 'name', ARGV[3])
local known = redis.call('HMGET', KEYS[2], 'name', 'renewed')
redis.call('HSET', KEYS[2], 'renewed', string.format('%.0f', now))
local ends, is_registered = string.format('%.0f', now + lease), 0
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if score ~= '0' then
    redis.call('ZADD', KEYS[1], ends, ARGV[1])
    is_registered = score and 1 or 0
end
if not known[2] or now - tonumber(known[2]) > lease / 2 then
    for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], 1, '+inf')) do
        redis.call('ZADD', KEYS[1], ends, node)
    end
end
return {known[1], is_registered, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - 1))}
"""
)

REMOVE_NODE = _script(
    """\
-- KEYS: the leases of all nodes, the channels in which the node has members.
-- ARGV: node, the prefix of the keys of its members, the prefix of topics, 1 if its lease need not have ended.
-- Returns how many of its channels remain: the script must be called until it is 0.
local clock = redis.call('TIME')
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if ARGV[4] == '0' and (not score or tonumber(score) > clock[1] * 1000 + math.floor(clock[2] / 1000)) then
    return 0
end
redis.call('ZADD', KEYS[1], 0, ARGV[1])
for _, channel in ipairs(redis.call('SPOP', KEYS[2], 100)) do
    local key, reports = ARGV[2] .. channel, {}
    local members = redis.call('HGETALL', key)
    redis.call('DEL', key)
    for number = 1, #members, 2 do
        reports[#reports + 1] = '-' .. members[number] .. ' ' .. members[number + 1]
    end
    if #reports > 0 then
        redis.call('PUBLISH', ARGV[3] .. channel, 'P' .. table.concat(reports, '\\n'))
    end
end
local remaining = redis.call('SCARD', KEYS[2])
if remaining == 0 then
    redis.call('ZREM', KEYS[1], ARGV[1])
end
return remaining
"""
)

SCRIPTS = (PUBLISH, OPEN, READ, FIND, CHANGE_MEMBERS, LIST_MEMBERS, RENEW_LEASE, REMOVE_NODE)
