using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Tunnel.Channel;
using Lightway.Tunnel.Metrics;

namespace Lightway.Tunnel.Packets;

/// <summary>The segments of a superpacket that leave by the Expresslane: room, headers and counters are taken care of once per run.</summary>
internal sealed partial class PacketPath
{
    /// <summary>Cuts and encrypts the segments of a superpacket that are left, from <paramref name="next"/> on, into the worker's batch.</summary>
    /// <param name="plan">Prepared, with <paramref name="template"/>.</param>
    /// <param name="buffer">Holds the superpacket with at least <see cref="FrameModule.DataHeaderSize"/> bytes before it; all of it is overwritten.</param>
    /// <param name="offset">Where the superpacket starts.</param>
    /// <param name="next">Becomes the first segment that is neither sent nor dropped.</param>
    /// <returns>False: the socket is full. Call again for the rest.</returns>
    public bool TrySendSegments(
        in SuperpacketPlan plan,
        ReadOnlySpan<byte> template,
        Span<byte> buffer,
        int offset,
        ref int next
    )
    {
        var length = plan.HeaderLength + plan.GsoSize;
        var packet = buffer.Slice(offset, plan.PacketLength);
        while (next < plan.SegmentCount)
        {
            var whole = plan.SegmentCount - 1 - next; // the last may be shorter
            if (whole > 0 && LeavesByExpresslane(length))
            {
                var done = SendRun(plan, template, packet, next, whole);
                if (done == 0)
                {
                    return false;
                }
                next += done;
            }
            else
            {
                var written = Segment.write(plan, template, next, packet);
                if (TrySend(buffer, offset + (next * plan.GsoSize), written) == SendResult.Blocked)
                {
                    return false;
                }
                next++;
            }
        }
        return true;
    }

    private bool LeavesByExpresslane(int length) =>
        IsOpen && Expresslane.IsReady && length <= (Probes is { } probes ? probes.WholePacket : _insideMtu);

    /// <summary>Seals segments of one length, as many as one run of the batch takes, at most <paramref name="count"/>.</summary>
    /// <returns>Segments that are sent or dropped; 0: the socket is full.</returns>
    private int SendRun(in SuperpacketPlan plan, ReadOnlySpan<byte> template, Span<byte> packet, int first, int count)
    {
        var length = plan.HeaderLength + plan.GsoSize;
        var stride = WireHeaderModule.Size + ExpresslanePacket.Overhead + length;
        var batch = _worker.ToOutside;
        if (!batch.TryReserve(_envelope.Path, stride, count, TosOf(template), out var slots))
        {
            return 0;
        }
        Span<byte> header = stackalloc byte[WireHeaderModule.Size];
        _envelope.WriteHeader(WirePayload.Expresslane, header);
        var session = _envelope.Outgoing;
        var isSealed = true;
        var next = first;
        for (; isSealed && slots.Length >= stride; slots = slots[stride..])
        {
            var written = Segment.write(plan, template, next, packet);
            header.CopyTo(slots);
            isSealed = Expresslane.TrySeal(
                session,
                slots[WireHeaderModule.Size..stride],
                packet.Slice(next * plan.GsoSize, written),
                flags: 0,
                _worker.Random
            );
            next++;
        }
        var done = next - first;
        var sent = done;
        if (!isSealed)
        {
            _worker.Counters.Add(Counter.ExpresslaneEncryptNoKey);
            sent--;
        }
        if (sent > 0)
        {
            batch.Commit(stride, sent);
            _worker.Counters.Add(Counter.ExpresslanePacketsSent, sent);
            CountSent(sent, length);
        }
        return done;
    }
}
