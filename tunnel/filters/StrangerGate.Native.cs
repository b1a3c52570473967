using Lightway.Protocol;
using Lightway.Tunnel.Kernel;
using Tmds.Linux;
using static Tmds.Linux.LibC;

namespace Lightway.Tunnel.Filters;

/// <summary>
/// Drops floods in the kernel, before they cost a wake-up: a BPF program on each socket (SO_ATTACH_BPF, socket(7)) lets
/// datagrams of known sessions through, drops what is not Lightway, and gives each source of the rest a
/// <see cref="GateBudget"/>. Where bpf(2) is not allowed (CAP_BPF), user space does all of that alone, at a higher price.
/// </summary>
/// <remarks>
/// Law: a datagram that carries an admitted session id is never dropped here, whoever sends it. A run of datagrams that the
/// kernel has put together (UDP_GRO) is judged by its first one, and costs as many as it holds.
/// Any thread may call any member.
/// </remarks>
public sealed unsafe class StrangerGate : IDisposable
{
    private const int MaxSessions = 1 << 20; // ids, with memory for those that are there
    private const int Sources = 1 << 16; // of the most recent strangers: about 6 MB
    private const int SourceKeySize = 12; // address or prefix, EtherType

    // The shared words: budget, then three counts per socket.
    private const int IntervalAt = 0;
    private const int BurstAt = 1;
    private const int FirstSocketAt = 2;
    private const int WordsPerSocket = 3;

    // A socket's program sees the UDP header first (RFC 768), then the wire header.
    private const uint HeadersSize = 24; // bytes of both
    private const uint MagicAt = 8;
    private const uint VersionAt = 10;
    private const uint SessionAt = 16;

    private readonly int _sessions;
    private readonly int _sources;
    private readonly int _words;
    private readonly int _wordCount;
    private readonly ulong* _shared;
    private volatile bool _isFull;

    private StrangerGate(int sessions, int sources, int words, int wordCount, ulong* shared)
    {
        _sessions = sessions;
        _sources = sources;
        _words = words;
        _wordCount = wordCount;
        _shared = shared;
    }

    /// <param name="sockets">How many sockets it is for.</param>
    /// <returns>Null if the kernel does not let us, with the reason: no CAP_BPF, usually.</returns>
    public static StrangerGate? TryCreate(int sockets, GateBudget budget, out string reason)
    {
        var count = FirstSocketAt + (WordsPerSocket * sockets);
        var sessions = Bpf.CreateMap(Bpf.Hash, sizeof(ulong), 1, MaxSessions, Bpf.GrowsOnDemand);
        var sources = sessions < 0 ? -1 : Bpf.CreateMap(Bpf.LruHash, SourceKeySize, sizeof(ulong), Sources);
        var words = sources < 0 ? -1 : Bpf.CreateMap(Bpf.Array, sizeof(int), count * sizeof(ulong), 1, Bpf.Mappable);
        reason = words < 0 ? Linux.Failure(Linux.Errno, "bpf BPF_MAP_CREATE").Message : "";
        var shared =
            words < 0
                ? null
                : mmap(null, (size_t)(count * sizeof(ulong)), PROT_READ | PROT_WRITE, MAP_SHARED, words, 0);
        if (shared == MAP_FAILED)
        {
            reason = Linux.Failure(Linux.Errno, "mmap of a BPF array").Message;
        }
        if (reason == "")
        {
            var gate = new StrangerGate(sessions, sources, words, count, (ulong*)shared);
            gate.Use(budget);
            return gate;
        }
        Close(sessions, sources, words);
        return null;
    }

    /// <summary>Puts the program on a socket, which keeps it until it is closed.</summary>
    /// <param name="fd">The socket.</param>
    /// <param name="index">Its number, from 0.</param>
    /// <returns>False: the kernel does not let us, with the reason.</returns>
    public bool TryAttach(int fd, int index, out string reason)
    {
        var program = Write(index).Load();
        if (program < 0)
        {
            reason = Linux.Failure(Linux.Errno, "bpf BPF_PROG_LOAD").Message;
            return false;
        }
        var isAttached = setsockopt(fd, SOL_SOCKET, Linux.SO_ATTACH_BPF, &program, sizeof(int)) == 0;
        reason = isAttached ? "" : Linux.Failure(Linux.Errno, "setsockopt SO_ATTACH_BPF").Message;
        close(program); // the socket holds it
        return isAttached;
    }

    /// <summary>Another budget, from now on.</summary>
    public void Use(GateBudget budget)
    {
        Volatile.Write(ref _shared[BurstAt], (ulong)budget.BurstNs);
        Volatile.Write(ref _shared[IntervalAt], _isFull ? 0 : (ulong)budget.IntervalNs);
    }

    /// <summary>Datagrams with this session id come through. If the table is full, the gate stays open for everybody.</summary>
    public void Admit(SessionId id)
    {
        var key = stackalloc uint[2];
        byte value = 1;
        Split(id, key);
        if (!Bpf.Update(_sessions, key, &value))
        {
            _isFull = true;
            Volatile.Write(ref _shared[IntervalAt], 0);
        }
    }

    /// <summary>The session id is a stranger's again.</summary>
    public void Forget(SessionId id)
    {
        var key = stackalloc uint[2];
        Split(id, key);
        _ = Bpf.Delete(_sessions, key);
    }

    /// <summary>What the program of a socket has dropped since it was put there.</summary>
    public GateDrops DroppedAt(int index)
    {
        var first = FirstWord(index);
        return new GateDrops(Read(first), Read(first + 1), Read(first + 2));

        long Read(int word) => (long)Volatile.Read(ref _shared[word]);
    }

    /// <summary>Programs that are on a socket keep the tables, but nobody changes them any longer.</summary>
    public void Dispose()
    {
        _ = munmap(_shared, (size_t)(_wordCount * sizeof(ulong)));
        Close(_sessions, _sources, _words);
    }

    private static int FirstWord(int index) => FirstSocketAt + (WordsPerSocket * index);

    private static void Close(params ReadOnlySpan<int> descriptors)
    {
        foreach (var descriptor in descriptors)
        {
            if (descriptor >= 0)
            {
                close(descriptor);
            }
        }
    }

    /// <summary>As the program puts the id together from two words in host order.</summary>
    private static void Split(SessionId id, uint* key)
    {
        key[0] = (uint)(id.Value >> 32);
        key[1] = (uint)id.Value;
    }

    private BpfProgram Write(int index)
    {
        // struct __sk_buff of linux/bpf.h
        const short Length = 0;
        const short Protocol = 16;
        const short Segments = 164; // gso_segs: 0 for a single datagram
        const uint IPv4 = 0x0008; // ETH_P_IP in network order, as read on a little-endian machine
        const uint NetworkHeader = 1; // BPF_HDR_START_NET

        // The stack, below register 10.
        const short SessionKey = -8;
        const short SourceKey = -24; // 12 bytes: address or prefix, then the EtherType
        const short SourceKind = -16;
        const short Arrival = -32;

        // Registers that calls keep: 6 the packet, 7 how many datagrams it holds, 8 the time.
        var program = new BpfProgram();
        program.Copy(6, 1);
        program.Load32(7, 6, Segments);
        program.Jump(BpfProgram.If.NotEqual, 7, 0, "counted");
        program.Set(7, 1);
        program.Label("counted");

        program.Load32(0, 6, Length);
        program.Set(1, HeadersSize);
        program.JumpByRegister(BpfProgram.If.Above, 1, 0, "noise");
        program.LoadPacket16(MagicAt);
        program.Jump(BpfProgram.If.NotEqual, 0, WireHeaderModule.Magic, "noise");
        program.LoadPacket16(VersionAt);
        program.SubtractValue32(0, ProtocolVersion.V1_1);
        program.Jump(BpfProgram.If.Above, 0, ProtocolVersion.V1_3 - ProtocolVersion.V1_1, "noise");

        program.LoadPacket32(SessionAt);
        program.Store32(10, SessionKey, 0);
        program.LoadPacket32(SessionAt + 4);
        program.Store32(10, SessionKey + 4, 0);
        program.LoadMap(1, _sessions);
        program.Copy(2, 10);
        program.AddValue(2, SessionKey);
        program.Call(Bpf.Helper.Lookup);
        program.Jump(BpfProgram.If.NotEqual, 0, 0, "accept");

        // The source: an IPv4 address, or the first 64 bits of an IPv6 address.
        program.Set(1, 0);
        program.Store64(10, SourceKey, 1);
        program.Load32(1, 6, Protocol);
        program.Store32(10, SourceKind, 1);
        program.Set(2, 12);
        program.Set(4, 4);
        program.Jump(BpfProgram.If.Equal, 1, IPv4, "address");
        program.Set(2, 8);
        program.Set(4, 8);
        program.Label("address");
        program.Copy(1, 6);
        program.Copy(3, 10);
        program.AddValue(3, SourceKey);
        program.Set(5, NetworkHeader);
        program.Call(Bpf.Helper.SkbLoadBytesRelative);
        program.Jump(BpfProgram.If.NotEqual, 0, 0, "accept"); // no source: user space decides

        // The rate, as the time at which the source will have used up its budget (GCRA, ITU-T I.371).
        program.Call(Bpf.Helper.KtimeGetNs);
        program.Copy(8, 0);
        program.LoadMap(1, _sources);
        program.Copy(2, 10);
        program.AddValue(2, SourceKey);
        program.Call(Bpf.Helper.Lookup);
        program.LoadMapValue(1, _words, 0);
        program.Load64(2, 1, BurstAt * sizeof(ulong));
        program.Load64(1, 1, IntervalAt * sizeof(ulong));
        program.Multiply(7, 1); // from here on 7 is what the datagrams cost, in ns
        program.Jump(BpfProgram.If.Equal, 0, 0, "newcomer");
        program.Load64(3, 0, 0);
        program.JumpByRegister(BpfProgram.If.Above, 3, 8, "indebted");
        program.Copy(3, 8);
        program.Label("indebted");
        program.Copy(4, 3);
        program.Subtract(4, 8);
        program.JumpByRegister(BpfProgram.If.Above, 4, 2, "over limit");
        program.Add(3, 7);
        program.Store64(0, 0, 3);
        program.Jump("accept");

        program.Label("newcomer");
        program.Add(8, 7);
        program.Store64(10, Arrival, 8);
        program.LoadMap(1, _sources);
        program.Copy(2, 10);
        program.AddValue(2, SourceKey);
        program.Copy(3, 10);
        program.AddValue(3, Arrival);
        program.Set(4, 0); // BPF_ANY
        program.Call(Bpf.Helper.Update);
        program.Label("accept");
        program.Set(0, int.MaxValue); // all bytes of it
        program.End();

        Drop("noise", 0);
        Drop("over limit", 1);
        return program;

        void Drop(string label, int word)
        {
            program.Label(label);
            program.Load32(7, 6, Segments);
            program.Jump(BpfProgram.If.NotEqual, 7, 0, $"{label}, counted");
            program.Set(7, 1);
            program.Label($"{label}, counted");
            program.LoadMapValue(1, _words, (uint)FirstWord(index) * sizeof(ulong));
            program.AtomicAdd64(1, (short)(word * sizeof(ulong)), 7);
            program.Set(7, 1);
            program.AtomicAdd64(1, 2 * sizeof(ulong), 7);
            program.Set(0, 0);
            program.End();
        }
    }
}

/// <summary>What the gate has dropped at a socket.</summary>
/// <param name="Noise">Datagrams that were not Lightway.</param>
/// <param name="OverLimit">Datagrams whose source was above its budget.</param>
/// <param name="Buffers">All of it as the kernel counts drops: a run of datagrams (UDP_GRO) is one.</param>
public readonly record struct GateDrops(long Noise, long OverLimit, long Buffers);
