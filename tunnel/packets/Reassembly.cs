using Lightway.Protocol;
using Lightway.Tunnel.Metrics;

namespace Lightway.Tunnel.Packets;

/// <summary>
/// The packets of one connection of which not all fragments have come. Holds memory only while there are any, and counts it
/// against what its worker may hold. One thread.
/// </summary>
internal sealed class Reassembly(WorkerContext worker) : IDisposable
{
    private const int FragmentIds = 4096;
    private const int FragmentBytes = 1 << 20;
    private const long FragmentTimeoutMs = 10_000;
    private FragmentTable? _table; // once a fragment has come

    /// <summary>When <see cref="Expire"/> is due, in ms; <see cref="long.MaxValue"/>: never.</summary>
    public long ExpiresAt => _table?.ExpiresAt ?? long.MaxValue;

    /// <summary>Adds a fragment. False: its packet is not complete, or it is counted and dropped.</summary>
    /// <param name="packet">A packet that is complete, in the slot that the TUN batch gave last.</param>
    public bool TryComplete(in Frame frame, ReadOnlySpan<byte> payload, long now, out Span<byte> packet)
    {
        packet = default;
        if (worker.FragmentBytes >= WorkerContext.FragmentBudget)
        {
            worker.Counters.Add(Counter.FragmentOverBudget);
            return false;
        }
        if (_table is null)
        {
            _table = new FragmentTable(FragmentIds, FragmentBytes, FragmentTimeoutMs);
            worker.Counters.Add(Counter.ConnAllocFragMap);
        }
        var slot = worker.ToInside.Reserve(Sizes.MaxPacket);
        var length = 0;
        var held = _table.BytesHeld;
        var status = _table.Add(
            (ushort)frame.Id,
            frame.FragmentOffset,
            frame.MoreFragments,
            payload,
            now,
            slot,
            ref length
        );
        worker.FragmentBytes += _table.BytesHeld - held;
        if (status == FragmentStatus.Invalid)
        {
            worker.Counters.Add(Counter.FragmentInvalid);
        }
        packet = slot[..length];
        return status == FragmentStatus.Complete;
    }

    /// <summary>Drops packets that stayed incomplete too long; the memory goes back with the last one.</summary>
    public void Expire(long now)
    {
        if (_table is not { } table)
        {
            return;
        }
        var held = table.BytesHeld;
        table.Expire(now);
        worker.FragmentBytes += table.BytesHeld - held;
        if (table.BytesHeld == 0)
        {
            _table = null;
        }
    }

    public void Dispose()
    {
        worker.FragmentBytes -= _table?.BytesHeld ?? 0;
        _table = null;
    }
}
