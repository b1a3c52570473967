using System.Runtime.InteropServices;
using Lightway.Segmenter;
using Lightway.Tunnel.Kernel;
using static Tmds.Linux.LibC;

namespace Lightway.Tunnel.Tun;

/// <summary>
/// Chooses the TUN queue of a packet by its destination: the queue of the worker that has the client, without a hand-over.
/// A BPF program on the device (TUNSETSTEERINGEBPF, Linux 4.16; linux/if_tun.h) looks the address up in a table of ours
/// (bpf(2)). Without it the kernel goes by the queue that last wrote a flow's reverse direction, or by a hash.
/// </summary>
public sealed unsafe class QueueSteering : IDisposable
{
    // linux/bpf.h
    private const int MapCreate = 0;
    private const int MapUpdate = 2;
    private const int ProgramLoad = 5;
    private const uint ArrayMap = 2; // BPF_MAP_TYPE_ARRAY
    private const uint SocketFilter = 1; // BPF_PROG_TYPE_SOCKET_FILTER
    private const int MaxAddresses = 1 << 20; // a table of 8 MiB
    private const uint DestinationAt = 16; // in an IPv4 header (RFC 791); in other packets whatever is there

    private readonly int _tun;
    private readonly int _map;

    private QueueSteering(int tun, int map) => (_tun, _map) = (tun, map);

    /// <param name="tun">Any queue of the device; stays the caller's.</param>
    /// <param name="network">The first address of the clients' network.</param>
    /// <param name="addresses">How many addresses it has.</param>
    /// <returns>Null if the kernel does not let us, with the reason: no CAP_BPF, usually.</returns>
    public static QueueSteering? TryAttach(TunQueue tun, Ipv4Address network, int addresses, out string reason)
    {
        if (addresses > MaxAddresses)
        {
            reason = $"the network has more than {MaxAddresses} addresses";
            return null;
        }
        var map = CreateMap((uint)addresses);
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
        var attached = ioctl(tun.Fd, Linux.TUNSETSTEERINGEBPF, &program) == 0;
        reason = attached ? "" : Linux.Failure(Linux.Errno, "TUNSETSTEERINGEBPF").Message;
        close(program); // the device holds it
        if (attached)
        {
            return new QueueSteering(tun.Fd, map);
        }
        close(map);
        return null;
    }

    /// <summary>From now on packets to this address come out of this queue.</summary>
    /// <param name="offset">Of the address in the network.</param>
    /// <param name="queue">Number of the queue, in the order in which they were opened.</param>
    public void Set(int offset, int queue)
    {
        var attributes = stackalloc byte[32];
        new Span<byte>(attributes, 32).Clear();
        *(int*)attributes = _map;
        *(int**)(attributes + 8) = &offset;
        *(int**)(attributes + 16) = &queue;
        _ = Bpf(MapUpdate, attributes, 32); // refused: the queue is another one, and the packets are handed over
    }

    /// <summary>Gives the choice back to the kernel. The device must still be open.</summary>
    public void Dispose()
    {
        var none = -1;
        _ = ioctl(_tun, Linux.TUNSETSTEERINGEBPF, &none); // a persistent device would keep the program
        close(_map);
    }

    private static int CreateMap(uint entries)
    {
        var attributes = stackalloc uint[] { ArrayMap, sizeof(int), sizeof(int), entries, 0 };
        return Bpf(MapCreate, attributes, 20);
    }

    private static int LoadProgram(int map, uint network)
    {
        // struct bpf_insn: code, destination | source << 4, offset, immediate. Registers as in linux/bpf.h: 0 results,
        // 1 to 5 arguments, 6 to 9 kept, 10 the stack.
        var instructions = stackalloc ulong[]
        {
            Instruction(0xBF, 6, 1, 0, 0), // r6 = r1: the packet, for the load below
            Instruction(0x20, 0, 0, 0, DestinationAt), // r0 = word of the packet, in host order; too short: ends with 0
            Instruction(0x14, 0, 0, 0, network), // w0 -= network
            Instruction(0x63, 10, 0, -4, 0), // stack[-4] = w0
            Instruction(0xBF, 2, 10, 0, 0), // r2 = stack
            Instruction(0x07, 2, 0, 0, unchecked((uint)-4)), // r2 -= 4: the key
            Instruction(0x18, 1, 1, 0, (uint)map), // r1 = map (BPF_PSEUDO_MAP_FD), in two instructions
            Instruction(0x00, 0, 0, 0, 0),
            Instruction(0x85, 0, 0, 0, 1), // r0 = bpf_map_lookup_elem
            Instruction(0x15, 0, 0, 1, 0), // none: ends with 0
            Instruction(0x61, 0, 0, 0, 0), // r0 = what was found
            Instruction(0x95, 0, 0, 0, 0), // end: the queue is r0 modulo their number
        };
        fixed (byte* licence = "\0"u8)
        {
            var attributes = stackalloc byte[48];
            new Span<byte>(attributes, 48).Clear();
            *(uint*)attributes = SocketFilter;
            *(uint*)(attributes + 4) = 12;
            *(ulong**)(attributes + 8) = instructions;
            *(byte**)(attributes + 16) = licence;
            return Bpf(ProgramLoad, attributes, 48);
        }
    }

    private static ulong Instruction(byte code, byte destination, byte source, short offset, uint immediate) =>
        code | ((ulong)(destination | (source << 4)) << 8) | ((ulong)(ushort)offset << 16) | ((ulong)immediate << 32);

    private static int Bpf(int command, void* attributes, int size)
    {
        nint number = RuntimeInformation.ProcessArchitecture == Architecture.Arm64 ? 280 : 321; // asm/unistd.h
        return (int)Linux.syscall(number, command, attributes, size);
    }
}
