using Lightway.Protocol;
using Lightway.Tunnel.Metrics;

namespace Lightway.Tunnel.Channel;

/// <summary>
/// Sends inside packets that are too long for one datagram in fragment frames. They go by the control channel, which is
/// DTLS, also when there is an Expresslane. One thread.
/// </summary>
internal sealed class FragmentWriter(SecureChannel channel, WorkerContext worker)
{
    private ushort _id; // of the latest packet; the first has 1

    /// <param name="packet">At most 65535 bytes.</param>
    /// <param name="payload">Bytes of it in every fragment but the last: a multiple of 8.</param>
    /// <param name="tos">TOS byte of the datagrams.</param>
    /// <param name="isEncoded">The packet has gone through a codec.</param>
    /// <returns>
    /// Blocked: the socket may have become full in the middle of the packet. Offered again, it goes out whole, under
    /// another id; the peer forgets the fragments that it has.
    /// </returns>
    public SendResult TrySend(ReadOnlySpan<byte> packet, int payload, byte tos, bool isEncoded)
    {
        _id++;
        for (var offset = 0; offset < packet.Length; offset += payload)
        {
            var rest = packet[offset..];
            var isLast = rest.Length <= payload;
            var fragment = isLast ? rest : rest[..payload];
            var length = isEncoded
                ? FrameModule.writeEncodedFragment(_id, offset, !isLast, fragment, worker.Frame.Span)
                : FrameModule.writeFragment(_id, offset, !isLast, fragment, worker.Frame.Span);
            var result = channel.TrySendPacket(worker.Frame.Slice(0, length), tos);
            if (result != SendResult.Accepted)
            {
                return result;
            }
            worker.Counters.Add(Counter.FragmentsSent);
        }
        worker.Counters.Add(Counter.TunPacketsFragmented);
        return SendResult.Accepted;
    }
}
