"""The scripts that publish events, and read them: ``scripts`` describes the log of a channel."""

from typing import NamedTuple

from twistedsock.redis.scripts import LOG, make_script


class Kept(NamedTuple):
    """How much of the history of a channel is kept, as the scripts take it."""

    events: int
    bytes: int
    milliseconds: int


THIS_REQUEST, OTHER_REQUEST, OTHER_FINGERPRINT = range(3)
"""Whether a publication, or another one with its key, has created the events; or that one has another fingerprint."""

PUBLISH = make_script(
    f"local THIS_REQUEST, OTHER_REQUEST, OTHER_FINGERPRINT = {THIS_REQUEST}, {OTHER_REQUEST}, {OTHER_FINGERPRINT}\n",
    LOG,
    """
-- ARGV: fence, topic, node, events kept, bytes kept, milliseconds kept, count, token, since, events, fingerprint,
-- 1 for a topic that only the server of its slot has (SPUBLISH).
-- KEYS[2], if given, remembers the offset, the token and the fingerprint of the first publication with a key.
-- since: empty, or the time before which an entry with this token cannot have been written by a former attempt.
-- Returns the offset of the first event, epoch, time, source and the clock of the server; an empty epoch if the events
-- were published before, offset 0 if that is unknown, or if the key has another fingerprint.
if KEYS[2] then
    local known = redis.call('GET', KEYS[2])
    if known then
        local first, token, fingerprint = string.match(known, '^(%d+) (%S+) (.*)$')
        if fingerprint ~= ARGV[11] then
            return {0, '', '0', OTHER_FINGERPRINT, text(now)}
        end
        return {tonumber(first), '', '0', token == ARGV[8] and THIS_REQUEST or OTHER_REQUEST, text(now)}
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
                return {before + 1, epoch, fields[8], THIS_REQUEST, text(now)}
            end
            if tonumber(fields[8]) < tonumber(since) then
                is_complete = true
                break
            end
            from = '(' .. entry[1]
        end
    until is_complete or #entries < 8
    if not is_complete and before > 0 then
        return {0, '', '0', THIS_REQUEST, text(now)}
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
    redis.call('SET', KEYS[2], text(first) .. ' ' .. token .. ' ' .. ARGV[11], 'EX', KEY_MEMORY_SECONDS)
end
local message = 'E' .. place.epoch .. ' ' .. text(first) .. ' ' .. text(place.time) .. ' ' .. ARGV[3] .. '\\n' .. events
if ARGV[12] then
    redis.call('SPUBLISH', ARGV[2], message)
else
    redis.call('PUBLISH', ARGV[2], message)
end
return {first, place.epoch, text(place.time), THIS_REQUEST, text(now)}
""",
)

OPEN = make_script(
    LOG,
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

READ = make_script(
    LOG,
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

FIND = make_script(
    LOG,
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

EVENT_SCRIPTS = (PUBLISH, OPEN, READ, FIND)
