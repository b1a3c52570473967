using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;

namespace Lightway.Tunnel.Paths;

/// <summary>
/// ICMP errors about packets from the TUN device that go nowhere, back into the device. An error seems to come from where
/// the packet went: the kernel takes no packet from outside with an address of its own as the source. Each source gets a
/// few per second. One thread; off the path of packets that pass.
/// </summary>
internal sealed class ErrorReplies(WorkerContext worker)
{
    private const int Buckets = 256;
    private const int PerSecond = 20; // to one source
    private const int Burst = 20;
    private readonly RateLimit _limit = new(Buckets, PerSecond, Burst);
    private readonly HashSeed _seed = Seeds.Draw(worker.Random);

    /// <summary>
    /// Tells the sender of a packet with DF that at most <paramref name="mtu"/> bytes pass (RFC 1191). Packets without DF,
    /// and those that no error may be sent about, get none.
    /// </summary>
    /// <param name="packet">Packet or superpacket, as it came from the device.</param>
    public void FragmentationNeeded(ReadOnlySpan<byte> packet, int mtu, long now)
    {
        var slot = worker.ToInside.Reserve(Icmp.MaxLength);
        var source = Rewrite.destinationOf(packet).Value;
        Send(packet, Icmp.writeFragmentationNeeded(packet, source, mtu, slot), now);
    }

    /// <summary>Tells the sender of a packet that no peer has its destination.</summary>
    public void HostUnreachable(ReadOnlySpan<byte> packet, long now)
    {
        var slot = worker.ToInside.Reserve(Icmp.MaxLength);
        Send(packet, Icmp.writeHostUnreachable(packet, Rewrite.destinationOf(packet).Value, slot), now);
    }

    /// <summary>Puts the error of this length into the device, if there is one and its receiver may get one more.</summary>
    private void Send(ReadOnlySpan<byte> packet, int length, long now)
    {
        if (length == 0)
        {
            return;
        }
        if (!_limit.Take(KeyedHash.ofWords(_seed, Rewrite.sourceOf(packet).Value, 0), now))
        {
            worker.Counters.Add(Counter.IcmpErrorsSuppressed);
            return;
        }
        worker.ToInside.Commit(length, sender: 0, counter: 0);
        worker.ToInside.Flush();
        worker.Counters.Add(Counter.IcmpErrorsSent);
    }
}
