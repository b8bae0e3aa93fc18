"""What the Lua scripts that run in Redis have in common: their constants, and the functions for the log of a channel.

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


def make_script(*parts: str) -> Script:
    """A script of some parts, which can use the constants of this module."""
    constants = f"local MAX_FORMER_EPOCHS, REST_SECONDS = {MAX_FORMER_EPOCHS}, {REST_SECONDS}\n"
    constants += f"local KEY_MEMORY_SECONDS = {KEY_MEMORY_SECONDS}\n"
    text = "".join((constants, *parts)).encode()
    return Script(text, sha1(text).hexdigest().encode())


LOG = """\
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
        -- If clocks are behind, two servers that continue from the same entry must not name their epochs alike.
        local distance = tonumber(string.sub(fence, 1, 6), 16) or 0
        place.epoch = text(math.max(fresh, tonumber(epoch) + 1 + distance))
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
"""Functions for the log of a channel, which is the first key of a script."""
