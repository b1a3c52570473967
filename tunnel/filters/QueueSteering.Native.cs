using Lightway.Segmenter;
using Lightway.Tunnel.Kernel;
using static Tmds.Linux.LibC;

namespace Lightway.Tunnel.Filters;

/// <summary>
/// Chooses the TUN queue of a packet by its destination: the queue of the worker that has the client, without a hand-over.
/// A BPF program on the device (TUNSETSTEERINGEBPF, Linux 4.16; linux/if_tun.h) looks the address up in a table of ours
/// (bpf(2)). Without it the kernel goes by the queue that last wrote a flow's reverse direction, or by a hash.
/// </summary>
public sealed unsafe class QueueSteering : IDisposable
{
    private const int MaxAddresses = 1 << 20; // a table of 8 MiB
    private const uint DestinationAt = 16; // in an IPv4 header (RFC 791); in other packets whatever is there

    private readonly int _tun;
    private readonly int _map;

    private QueueSteering(int tun, int map) => (_tun, _map) = (tun, map);

    /// <param name="tun">Descriptor of any queue of the device; stays the caller's.</param>
    /// <param name="network">The first address of the clients' network.</param>
    /// <param name="addresses">How many addresses it has.</param>
    /// <returns>Null if the kernel does not let us, with the reason: no CAP_BPF, usually.</returns>
    public static QueueSteering? TryAttach(int tun, Ipv4Address network, int addresses, out string reason)
    {
        if (addresses > MaxAddresses)
        {
            reason = $"the network has more than {MaxAddresses} addresses";
            return null;
        }
        var map = Bpf.CreateMap(Bpf.Array, sizeof(int), sizeof(int), addresses);
        if (map < 0)
        {
            reason = Linux.Failure(Linux.Errno, "bpf BPF_MAP_CREATE").Message;
            return null;
        }
        var program = LoadProgram(map, network.Value);
        if (program < 0)
        {
            reason = Linux.Failure(Linux.Errno, "bpf BPF_PROG_LOAD").Message;
            close(map);
            return null;
        }
        var attached = ioctl(tun, Linux.TUNSETSTEERINGEBPF, &program) == 0;
        reason = attached ? "" : Linux.Failure(Linux.Errno, "TUNSETSTEERINGEBPF").Message;
        close(program); // the device holds it
        if (attached)
        {
            return new QueueSteering(tun, map);
        }
        close(map);
        return null;
    }

    /// <summary>From now on packets to this address come out of this queue.</summary>
    /// <param name="offset">Of the address in the network.</param>
    /// <param name="queue">Number of the queue, in the order in which they were opened.</param>
    public void Set(int offset, int queue) => _ = Bpf.Update(_map, &offset, &queue); // refused: the queue is another one, and the packets are handed over

    /// <summary>Gives the choice back to the kernel. The device must still be open.</summary>
    public void Dispose()
    {
        var none = -1;
        _ = ioctl(_tun, Linux.TUNSETSTEERINGEBPF, &none); // a persistent device would keep the program
        close(_map);
    }

    private static int LoadProgram(int map, uint network) =>
        Bpf.Load([
            Bpf.Instruction(0xBF, 6, 1), // r6 = r1: the packet, for the load below
            Bpf.Instruction(0x20, immediate: DestinationAt), // r0 = word of the packet, in host order; too short: ends with 0
            Bpf.Instruction(0x14, 0, immediate: network), // w0 -= network
            Bpf.Instruction(0x63, 10, 0, -4), // stack[-4] = w0
            Bpf.Instruction(0xBF, 2, 10), // r2 = stack
            Bpf.Instruction(0x07, 2, immediate: unchecked((uint)-4)), // r2 -= 4: the key
            Bpf.Instruction(0x18, 1, 1, immediate: (uint)map), // r1 = map (BPF_PSEUDO_MAP_FD), in two instructions
            Bpf.Instruction(0x00),
            Bpf.Instruction(0x85, immediate: (uint)Bpf.Helper.Lookup), // r0 = where the value is
            Bpf.Instruction(0x15, 0, 0, 1), // none: ends with 0
            Bpf.Instruction(0x61, 0, 0), // r0 = what was found
            Bpf.Instruction(0x95), // end: the queue is r0 modulo their number
        ]);
}
