using System.Net;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Lightway.Segmenter;

namespace Lightway.Server.Addresses;

/// <summary>
/// Inside addresses for clients: the hosts of a network less its reserved addresses. An address that was never used is
/// handed out first, then the one that has been free for longest, so that packets for a client that left do not
/// reach the next one. Safe from any thread.
/// </summary>
public sealed class AddressPool
{
    // Networks larger than a /8 would only cost memory: the pool holds 5 bytes for each of its addresses.
    private const int ShortestPrefix = 8;
    private const int LongestPrefix = 30;

    private readonly Lock _gate = new();
    private readonly uint _base;
    private readonly int _size; // addresses of the network, network and broadcast address included

    // Ring of free addresses as offsets from the base; as long as the pool, so it cannot overflow.
    private readonly int[] _free;
    private readonly bool[] _assigned; // by offset
    private int _head; // index of the address to hand out next
    private int _freeCount;

    /// <param name="network">IPv4, with a prefix from /8 to /30.</param>
    /// <param name="reserved">IPv4 addresses never handed out; those outside the network change nothing.</param>
    /// <param name="randomize">Order of never-used addresses: random, or ascending.</param>
    /// <exception cref="ArgumentOutOfRangeException">The prefix is none of these.</exception>
    public AddressPool(IPNetwork network, IReadOnlyCollection<IPAddress> reserved, bool randomize)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(network.PrefixLength, ShortestPrefix, nameof(network));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(network.PrefixLength, LongestPrefix, nameof(network));
        _base = Ipv4Address.Of(network.BaseAddress).Value;
        _size = 1 << (32 - network.PrefixLength);
        var excluded = reserved.Select(address => OffsetOf(Ipv4Address.Of(address))).ToHashSet();
        _free = [.. Enumerable.Range(1, _size - 2).Where(offset => !excluded.Contains(offset))];
        _assigned = new bool[_size];
        _freeCount = _free.Length;
        if (randomize)
        {
            Shuffle(_free);
        }
    }

    /// <summary>Addresses that can be in use at the same time.</summary>
    public int Capacity => _free.Length;

    /// <summary>Addresses of the whole network; every offset is below it.</summary>
    public int Size => _size;

    /// <summary>Addresses in use.</summary>
    public int Assigned
    {
        get
        {
            lock (_gate)
            {
                return _free.Length - _freeCount;
            }
        }
    }

    /// <summary>Takes an address. False when none is left; <paramref name="address"/> is <see cref="Ipv4Address.None"/> then.</summary>
    public bool TryAllocate(out Ipv4Address address)
    {
        lock (_gate)
        {
            if (_freeCount == 0)
            {
                address = Ipv4Address.None;
                return false;
            }
            var offset = _free[_head];
            _head = (_head + 1) % _free.Length;
            _freeCount--;
            _assigned[offset] = true;
            address = new Ipv4Address(_base + (uint)offset);
            return true;
        }
    }

    /// <summary>Gives an address back. One that is not in use changes nothing, so freeing twice is harmless.</summary>
    public void Free(Ipv4Address address)
    {
        lock (_gate)
        {
            var offset = OffsetOf(address);
            if (offset < 0 || !_assigned[offset])
            {
                return;
            }
            _assigned[offset] = false;
            _free[(_head + _freeCount) % _free.Length] = offset;
            _freeCount++;
        }
    }

    /// <summary>
    /// Place of an address in the network, from 0 for the network address; -1 outside. Runs for each packet: a table
    /// of connections is an array indexed by it.
    /// </summary>
    public int OffsetOf(Ipv4Address address)
    {
        var offset = address.Value - _base; // wraps to a large number below the base
        return offset < (uint)_size ? (int)offset : -1;
    }

    // Fisher-Yates. RandomNumberGenerator.Shuffle makes a system call for each element, seconds for a /8; here one
    // 64-bit draw scaled to the range decides, with a bias below 2^-40.
    private static void Shuffle(Span<int> items)
    {
        Span<ulong> draws = stackalloc ulong[512];
        var used = draws.Length;
        for (var last = items.Length - 1; last > 0; last--)
        {
            if (used == draws.Length)
            {
                RandomNumberGenerator.Fill(MemoryMarshal.AsBytes(draws));
                used = 0;
            }
            var chosen = (int)Math.BigMul(draws[used++], (ulong)last + 1, out _);
            (items[last], items[chosen]) = (items[chosen], items[last]);
        }
    }
}
