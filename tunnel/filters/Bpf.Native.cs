using System.Runtime.InteropServices;
using Lightway.Tunnel.Kernel;
using static Tmds.Linux.LibC;

namespace Lightway.Tunnel.Filters;

/// <summary>bpf(2): tables that a program in the kernel and this process share, and programs that read packets.</summary>
internal static unsafe class Bpf
{
    // linux/bpf.h: commands
    private const int MapCreate = 0;
    private const int MapUpdate = 2;
    private const int MapDelete = 3;
    private const int ProgramLoad = 5;
    private const uint SocketFilter = 1; // BPF_PROG_TYPE_SOCKET_FILTER

    // Kinds of tables.
    public const uint Hash = 1;
    public const uint Array = 2;
    public const uint LruHash = 9; // Linux 4.10; needs CAP_BPF

    // Flags of tables.
    public const uint GrowsOnDemand = 1; // BPF_F_NO_PREALLOC
    public const uint Mappable = 1 << 10; // BPF_F_MMAPABLE, Linux 5.5

    /// <summary>Functions that programs may call.</summary>
    public enum Helper : uint
    {
        Lookup = 1,
        Update = 2,
        KtimeGetNs = 5,
        SkbLoadBytesRelative = 68, // Linux 4.18
    }

    /// <returns>A descriptor, or -1 with errno set.</returns>
    public static int CreateMap(uint kind, int keySize, int valueSize, int entries, uint flags = 0)
    {
        var attributes = stackalloc uint[] { kind, (uint)keySize, (uint)valueSize, (uint)entries, flags };
        return Call(MapCreate, attributes, 20);
    }

    /// <summary>False with errno set: the table is full, or does not take the key.</summary>
    public static bool Update(int map, void* key, void* value) => OfElement(MapUpdate, map, key, value);

    /// <summary>False: the key was not there.</summary>
    public static bool Delete(int map, void* key) => OfElement(MapDelete, map, key, null);

    /// <summary>Loads a program that reads packets. Its helpers must not be reserved for the GPL.</summary>
    /// <returns>A descriptor, or -1 with errno set.</returns>
    public static int Load(ReadOnlySpan<ulong> instructions)
    {
        fixed (ulong* start = instructions)
        fixed (byte* licence = "\0"u8)
        {
            var attributes = stackalloc byte[48];
            new Span<byte>(attributes, 48).Clear();
            *(uint*)attributes = SocketFilter;
            *(uint*)(attributes + 4) = (uint)instructions.Length;
            *(ulong**)(attributes + 8) = start;
            *(byte**)(attributes + 16) = licence;
            return Call(ProgramLoad, attributes, 48);
        }
    }

    /// <summary>
    /// struct bpf_insn: code, destination | source &lt;&lt; 4, offset, immediate. Registers: 0 results, 1 to 5 arguments, 6 to 9
    /// kept, 10 the end of the stack.
    /// </summary>
    public static ulong Instruction(
        byte code,
        byte destination = 0,
        byte source = 0,
        short offset = 0,
        uint immediate = 0
    ) => code | ((ulong)(destination | (source << 4)) << 8) | ((ulong)(ushort)offset << 16) | ((ulong)immediate << 32);

    private static bool OfElement(int command, int map, void* key, void* value)
    {
        var attributes = stackalloc byte[32];
        new Span<byte>(attributes, 32).Clear();
        *(int*)attributes = map;
        *(void**)(attributes + 8) = key;
        *(void**)(attributes + 16) = value;
        return Call(command, attributes, 32) == 0;
    }

    private static int Call(int command, void* attributes, int size)
    {
        nint number = RuntimeInformation.ProcessArchitecture == Architecture.Arm64 ? 280 : 321; // asm/unistd.h
        return (int)Linux.syscall(number, command, attributes, size);
    }
}
