using Lightway.Tunnel.Kernel;
using Tmds.Linux;
using static Tmds.Linux.LibC;

namespace Lightway.Tunnel.Filters;

/// <summary>
/// Spreads the datagrams of one port over the sockets that share it (SO_REUSEPORT, socket(7)): by session id, so that a
/// client that moves to another address stays with its worker; without one, by the kernel's hash of the addresses.
/// </summary>
internal static unsafe class ReusePort
{
    // linux/bpf_common.h, linux/filter.h
    private const ushort LoadWord = 0x20; // BPF_LD | BPF_W | BPF_ABS
    private const ushort JumpIfEqual = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    private const ushort Modulo = 0x94; // BPF_ALU | BPF_MOD | BPF_K
    private const ushort ReturnA = 0x16; // BPF_RET | BPF_A
    private const ushort ReturnK = 0x06; // BPF_RET | BPF_K
    private const uint NoSocket = uint.MaxValue; // beyond the group: the kernel falls back to its hash
    private const uint LowerHalfOfSessionAt = 12; // wire header: the session id is at 8, 8 bytes in network order

    private struct Instruction(ushort code, byte jumpTrue, byte jumpFalse, uint operand) // struct sock_filter
    {
        public ushort Code = code;
        public byte JumpTrue = jumpTrue;
        public byte JumpFalse = jumpFalse;
        public uint Operand = operand;
    }

    private struct Program // struct sock_fprog
    {
        public ushort Length;
        public Instruction* Instructions;
    }

    /// <summary>Attaches the program to the group that <paramref name="fd"/> belongs to. False: the kernel's hash decides alone.</summary>
    public static bool SteerBySession(int fd, int sockets)
    {
        // Offsets count from the UDP payload. A datagram too short for a load ends the program with 0: the first socket.
        var program = stackalloc Instruction[]
        {
            new(LoadWord, 0, 0, LowerHalfOfSessionAt),
            new(JumpIfEqual, 2, 0, 0), // the empty session id
            new(Modulo, 0, 0, (uint)sockets),
            new(ReturnA, 0, 0, 0),
            new(ReturnK, 0, 0, NoSocket),
        };
        var whole = new Program { Length = 5, Instructions = program };
        return setsockopt(fd, SOL_SOCKET, Linux.SO_ATTACH_REUSEPORT_CBPF, &whole, sizeof(Program)) == 0;
    }
}
