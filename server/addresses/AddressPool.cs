using System.Net;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Lightway.Segmenter;

namespace Lightway.Server.Addresses;

/// <summary>
/// Inside addresses for clients: the hosts of a network less its reserved addresses. An address that was never used is
/// handed out first, then the one that has been free for longest, so that packets for a client that left do not
/// reach the next one. Some addresses may be fixed: they are handed out by name only, each to its own user. Safe from any
/// thread.
/// </summary>
public sealed class AddressPool
{
    // Networks larger than a /8 would only cost memory: the pool holds 5 bytes for each of its addresses.
    private const int ShortestPrefix = 8;
    private const int LongestPrefix = 30;

    private readonly Lock _gate = new();
    private readonly uint _base;
    private readonly int _size; // addresses of the network, network and broadcast address included

    private readonly Mark[] _marks; // by offset
    private readonly (int First, int Last)[] _parts; // offsets
    private readonly Ring[] _rings; // of each part, then of what is left
    private HashSet<int> _fixed = []; // offsets
    private int _assigned;

    /// <summary>What an address is; one that is reserved is nothing of it.</summary>
    [Flags]
    private enum Mark : byte
    {
        None = 0,
        Assigned = 1,

        /// <summary>In the ring of its part, once. It may be assigned or fixed all the same: it is skipped then.</summary>
        InRing = 2,
        Fixed = 4,
    }

    /// <param name="network">IPv4, with a prefix from /8 to /30.</param>
    /// <param name="reserved">IPv4 addresses never handed out; those outside the network change nothing.</param>
    /// <param name="randomize">Order of never-used addresses: random, or ascending.</param>
    /// <param name="parts">
    /// Networks within the network, without addresses in common: each is handed out by itself, and not with the rest.
    /// </param>
    /// <exception cref="ArgumentOutOfRangeException">The prefix is none of these.</exception>
    public AddressPool(
        IPNetwork network,
        IReadOnlyCollection<IPAddress> reserved,
        bool randomize,
        IReadOnlyList<IPNetwork>? parts = null
    )
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(network.PrefixLength, ShortestPrefix, nameof(network));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(network.PrefixLength, LongestPrefix, nameof(network));
        _base = Ipv4Address.Of(network.BaseAddress).Value;
        _size = 1 << (32 - network.PrefixLength);
        var excluded = reserved.Select(address => OffsetOf(Ipv4Address.Of(address))).ToHashSet();
        _marks = new Mark[_size];
        _parts = [.. (parts ?? []).Select(RangeOf)];
        _rings = new Ring[_parts.Length + 1];
        var members = Enumerable
            .Range(1, _size - 2)
            .Where(offset => !excluded.Contains(offset))
            .ToLookup(offset => PartOf(offset));
        for (var part = 0; part < _rings.Length; part++)
        {
            _rings[part] = new Ring([.. members[part]]);
            foreach (var offset in _rings[part].Free)
            {
                _marks[offset] = Mark.InRing;
            }
            if (randomize)
            {
                Shuffle(_rings[part].Free);
            }
        }
    }

    /// <summary>The number of the part that has all addresses outside the other parts.</summary>
    public int Rest => _parts.Length;

    /// <summary>Addresses that can be in use at the same time, fixed ones among them.</summary>
    public int Capacity => _rings.Sum(ring => ring.Free.Length);

    /// <summary>The same of one part, without fixed ones.</summary>
    public int CapacityOf(int part)
    {
        lock (_gate)
        {
            return _rings[part].Free.Length - _fixed.Count(offset => PartOf(offset) == part);
        }
    }

    /// <summary>Addresses of the whole network; every offset is below it.</summary>
    public int Size => _size;

    /// <summary>Addresses in use.</summary>
    public int Assigned
    {
        get
        {
            lock (_gate)
            {
                return _assigned;
            }
        }
    }

    /// <summary>
    /// Makes these addresses fixed, and all others not. Whoever has one now keeps it. Reserved addresses, and those outside
    /// the network, must not be among them.
    /// </summary>
    public void Fix(IEnumerable<Ipv4Address> addresses)
    {
        lock (_gate)
        {
            var before = _fixed;
            _fixed = [.. addresses.Select(OffsetOf)];
            foreach (var offset in _fixed)
            {
                _marks[offset] |= Mark.Fixed;
            }
            foreach (var offset in before.Except(_fixed))
            {
                _marks[offset] &= ~Mark.Fixed;
                ReturnToRing(offset);
            }
        }
    }

    /// <summary>Whether an address is handed out by name only.</summary>
    public bool IsFixed(Ipv4Address address)
    {
        lock (_gate)
        {
            return _fixed.Contains(OffsetOf(address));
        }
    }

    /// <summary>Takes an address by name. False if somebody has it.</summary>
    public bool TryAllocateFixed(Ipv4Address address)
    {
        lock (_gate)
        {
            var offset = OffsetOf(address);
            if (offset < 0 || (_marks[offset] & Mark.Assigned) != 0)
            {
                return false;
            }
            Assign(offset);
            return true;
        }
    }

    /// <summary>Takes an address of a part. False when none is left; <paramref name="address"/> is <see cref="Ipv4Address.None"/> then.</summary>
    public bool TryAllocate(int part, out Ipv4Address address)
    {
        lock (_gate)
        {
            while (_rings[part].TryTake(out var offset))
            {
                _marks[offset] &= ~Mark.InRing;
                if (_marks[offset] == Mark.None) // else it comes back when it is free and not fixed
                {
                    Assign(offset);
                    address = new Ipv4Address(_base + (uint)offset);
                    return true;
                }
            }
            address = Ipv4Address.None;
            return false;
        }
    }

    /// <summary>Gives an address back. One that is not in use changes nothing, so freeing twice is harmless.</summary>
    public void Free(Ipv4Address address)
    {
        lock (_gate)
        {
            var offset = OffsetOf(address);
            if (offset >= 0 && (_marks[offset] & Mark.Assigned) != 0)
            {
                _marks[offset] &= ~Mark.Assigned;
                _assigned--;
                ReturnToRing(offset);
            }
        }
    }

    /// <summary>The part that an address in use belongs to.</summary>
    public int PartOf(Ipv4Address address) => PartOf(OffsetOf(address));

    /// <summary>
    /// Place of an address in the network, from 0 for the network address; -1 outside. Runs for each packet: a table
    /// of connections is an array indexed by it.
    /// </summary>
    public int OffsetOf(Ipv4Address address)
    {
        var offset = address.Value - _base; // wraps to a large number below the base
        return offset < (uint)_size ? (int)offset : -1;
    }

    private void Assign(int offset)
    {
        _marks[offset] |= Mark.Assigned;
        _assigned++;
    }

    /// <summary>Puts an address back into its ring if it is free and not fixed, unless it is there.</summary>
    private void ReturnToRing(int offset)
    {
        if (_marks[offset] == Mark.None)
        {
            _marks[offset] = Mark.InRing;
            _rings[PartOf(offset)].Return(offset);
        }
    }

    private int PartOf(int offset)
    {
        for (var part = 0; part < _parts.Length; part++)
        {
            if (offset >= _parts[part].First && offset <= _parts[part].Last)
            {
                return part;
            }
        }
        return Rest;
    }

    private (int First, int Last) RangeOf(IPNetwork part)
    {
        var first = OffsetOf(Ipv4Address.Of(part.BaseAddress));
        var last = first + (int)((1L << (32 - part.PrefixLength)) - 1);
        ArgumentOutOfRangeException.ThrowIfNegative(first, nameof(part));
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(last, _size, nameof(part));
        return (first, last);
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

    /// <summary>Free addresses as offsets, in the order in which they are handed out; as long as all there are, so it cannot overflow.</summary>
    private sealed class Ring(int[] free)
    {
        private int _head; // index of the address to hand out next

        public int[] Free => free;

        public int Count { get; private set; } = free.Length;

        public bool TryTake(out int offset)
        {
            if (Count == 0)
            {
                offset = 0;
                return false;
            }
            offset = free[_head];
            _head = (_head + 1) % free.Length;
            Count--;
            return true;
        }

        public void Return(int offset)
        {
            free[(_head + Count) % free.Length] = offset;
            Count++;
        }
    }
}
