"""The scripts that keep the members of all nodes, and the leases of the nodes: ``presence`` describes them."""

from twistedsock.redis.scripts import make_script

CHANGE_MEMBERS = make_script(
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

LIST_MEMBERS = make_script(
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

RENEW_LEASE = make_script(
    """\
-- KEYS: the leases of all nodes, the registry.
-- ARGV: node, milliseconds, random name for a new registry, 1 if the node is to be registered if it is not.
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
if score ~= '0' and (score or ARGV[4] == '1') then
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

REMOVE_NODE = make_script(
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

PRESENCE_SCRIPTS = (CHANGE_MEMBERS, LIST_MEMBERS, RENEW_LEASE, REMOVE_NODE)
