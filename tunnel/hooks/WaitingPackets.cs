using Lightway.Protocol;

namespace Lightway.Tunnel.Hooks;

/// <summary>
/// Packets, plain or encoded, that wait for the worker's socket, in their order. Each has room for the header of a Data frame
/// before it. Its memory grows to what it has needed, up to a limit.
/// </summary>
internal sealed class WaitingPackets
{
    private const int Capacity = 512 * 1024; // bytes: more than a codec makes of one packet
    private readonly List<Entry> _entries = [];
    private byte[] _bytes = [];
    private int _first; // index of the oldest
    private int _tail; // where the next one goes

    /// <summary>Where a packet lies in <see cref="Bytes"/>, and how it is to be sent.</summary>
    public readonly record struct Entry(int Offset, int Length, byte Tos, bool IsEncoded);

    public bool IsEmpty => _first == _entries.Count;

    public Span<byte> Bytes => _bytes;

    public Entry Oldest => _entries[_first];

    /// <summary>Copies the packet. False: there is no room.</summary>
    public bool TryAdd(ReadOnlySpan<byte> packet, byte tos, bool isEncoded)
    {
        var offset = _tail + FrameModule.DataHeaderSize;
        if (offset + packet.Length > Capacity)
        {
            return false;
        }
        if (offset + packet.Length > _bytes.Length)
        {
            Array.Resize(ref _bytes, Math.Min(Capacity, 2 * (offset + packet.Length)));
        }
        packet.CopyTo(_bytes.AsSpan(offset));
        _entries.Add(new Entry(offset, packet.Length, tos, isEncoded));
        _tail = offset + packet.Length;
        return true;
    }

    public void RemoveOldest()
    {
        _first++;
        if (IsEmpty)
        {
            _entries.Clear();
            _first = 0;
            _tail = 0;
        }
    }
}
