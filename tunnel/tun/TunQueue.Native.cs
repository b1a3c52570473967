using System.Text;
using Lightway.Segmenter;
using Lightway.Tunnel.Kernel;
using Tmds.Linux;
using static Tmds.Linux.LibC;

namespace Lightway.Tunnel.Tun;

/// <summary>
/// One queue of a TUN device (Documentation/networking/tuntap.rst). With offload every frame carries a 10-byte
/// virtio_net_hdr (IFF_VNET_HDR) and the kernel hands over TSO and USO superpackets of up to 64 KiB; without, frames
/// are bare IP packets. One thread reads and writes.
/// </summary>
public sealed unsafe class TunQueue : ITunReader, ITunWriter, IDisposable
{
    /// <summary>Bytes a read buffer needs: a virtio_net_hdr and the largest IP packet. A shorter one loses data silently.</summary>
    public const int MaxFrame = VirtioNetHeaderModule.Size + 65535;

    private readonly Slab _vectors = new(2 * sizeof(iovec) + VirtioNetHeaderModule.Size);

    private readonly int _questions; // a socket for SIOCGIFMTU, opened at start: later there may be no descriptor left
    private int _mtu;

    private TunQueue(int fd, int questions, string name, bool vnet, bool tso, bool uso)
    {
        _questions = questions;
        Fd = fd;
        Name = name;
        HasVnetHeader = vnet;
        Tso = tso;
        Uso = uso;
        var vectors = (iovec*)_vectors.Pointer;
        vectors[0].iov_base = _vectors.Pointer + (2 * sizeof(iovec)); // ten zero bytes: a plain packet
        vectors[0].iov_len = VirtioNetHeaderModule.Size;
    }

    public int Fd { get; }

    /// <summary>Name of the interface, as the kernel settled it.</summary>
    public string Name { get; }

    /// <summary>Framing: each frame starts with a virtio_net_hdr. Independent of what TUNSETOFFLOAD accepted.</summary>
    public bool HasVnetHeader { get; }

    /// <summary>TCP superpackets may be read.</summary>
    public bool Tso { get; }

    /// <summary>UDP superpackets may be read (Linux 6.2).</summary>
    public bool Uso { get; }

    /// <summary>Creates or attaches to the device and leaves it non-blocking.</summary>
    /// <param name="name">Interface name, up to 15 bytes; null or empty lets the kernel pick tun0, tun1, …</param>
    /// <param name="offload">Whether to ask for virtio_net_hdr framing, and for TSO and USO superpackets to read.</param>
    /// <param name="shared">One of several queues of the device (IFF_MULTI_QUEUE); all must be opened so.</param>
    /// <exception cref="IOException">The device can't be opened; the message names the remedy.</exception>
    public static TunQueue Open(string? name, Offload offload, bool shared = false)
    {
        var requested = Encoding.ASCII.GetBytes(name ?? "");
        if (requested.Length >= Linux.IFNAMSIZ)
        {
            throw new IOException($"TUN device name '{name}' is longer than {Linux.IFNAMSIZ - 1} bytes");
        }
        int fd;
        fixed (byte* path = "/dev/net/tun\0"u8)
        {
            fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
        }
        if (fd < 0)
        {
            throw Linux.Failure(
                Linux.Errno,
                "open /dev/net/tun (is the tun module loaded, and is this process allowed to use it?)"
            );
        }
        var request = stackalloc byte[40]; // struct ifreq: name[16], then ifr_flags
        new Span<byte>(request, 40).Clear();
        requested.CopyTo(new Span<byte>(request, Linux.IFNAMSIZ));
        *(ushort*)(request + Linux.IFNAMSIZ) = (ushort)(
            Linux.IFF_TUN
            | Linux.IFF_NO_PI
            | (offload.NeedsVnetHeader ? Linux.IFF_VNET_HDR : 0)
            | (shared ? Linux.IFF_MULTI_QUEUE : 0)
        );
        if (ioctl(fd, Linux.TUNSETIFF, request) < 0)
        {
            var errno = Linux.Errno;
            close(fd);
            throw Linux.Failure(errno, $"TUNSETIFF '{name}' ({Remedy(errno, shared)})");
        }
        if (offload.NeedsVnetHeader)
        {
            // The size belongs to the device: who had a persistent one before may have left 12 bytes there.
            var size = VirtioNetHeaderModule.Size;
            if (ioctl(fd, Linux.TUNSETVNETHDRSZ, &size) < 0)
            {
                var errno = Linux.Errno;
                close(fd);
                throw Linux.Failure(errno, $"TUNSETVNETHDRSZ '{name}'");
            }
        }
        var settled = Encoding.ASCII.GetString(new ReadOnlySpan<byte>(request, Linux.IFNAMSIZ)).TrimEnd('\0');
        const int tcp = Linux.TUN_F_CSUM | Linux.TUN_F_TSO4 | Linux.TUN_F_TSO6;
        const int udp = Linux.TUN_F_USO4 | Linux.TUN_F_USO6;
        var uso = offload.TunTso && ioctl(fd, Linux.TUNSETOFFLOAD, tcp | udp) == 0;
        var tso = uso || (offload.TunTso && ioctl(fd, Linux.TUNSETOFFLOAD, tcp) == 0);
        if (!tso)
        {
            // The mask belongs to the device and survives on a persistent one: without this, bulk TCP would be corrupt.
            _ = ioctl(fd, Linux.TUNSETOFFLOAD, 0);
        }
        var questions = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (questions < 0)
        {
            var errno = Linux.Errno;
            close(fd);
            throw Linux.Failure(errno, "socket");
        }
        var queue = new TunQueue(fd, questions, settled, offload.NeedsVnetHeader, tso, uso);
        try
        {
            _ = queue.QueryMtu();
            return queue;
        }
        catch
        {
            queue.Dispose();
            throw;
        }
    }

    /// <summary>Opens several queues of one device. The kernel spreads flows over them (Documentation/networking/tuntap.rst).</summary>
    /// <exception cref="IOException">The device can't be opened; the message names the remedy.</exception>
    public static TunQueue[] OpenAll(string? name, Offload offload, int count)
    {
        if (!string.IsNullOrEmpty(name) && !IsFree(name))
        {
            // With several queues the kernel would let us join: two programs would share out one's packets.
            throw new IOException(
                $"device '{name}': another process has it; stop that process, or set another tun_name"
            );
        }
        var queues = new List<TunQueue>();
        try
        {
            for (var i = 0; i < count; i++)
            {
                queues.Add(Open(i == 0 ? name : queues[0].Name, offload, shared: count > 1));
            }
            return [.. queues];
        }
        catch
        {
            queues.ForEach(queue => queue.Dispose());
            throw;
        }
    }

    /// <summary>Nobody has the device. The kernel reports the end of its last owner up to a second later, so this waits.</summary>
    private static bool IsFree(string name)
    {
        const int polls = 20;
        for (var i = 0; i < polls && TunInterface.IsInUse(name); i++)
        {
            Thread.Sleep(100);
        }
        return !TunInterface.IsInUse(name);
    }

    private static string Remedy(int errno, bool shared) =>
        errno switch
        {
            Linux.EBUSY => "another process has the device: stop it, or set another tun_name",
            Linux.EINVAL when shared =>
                "it was created without multi_queue: create it again with it, or set workers: 1",
            Linux.EINVAL => "it was created with multi_queue: create it again without, or set workers: 2 or more",
            _ => "needs CAP_NET_ADMIN, or a persistent device of this user",
        };

    /// <summary>
    /// Asks for the MTU of the device, in bytes. The device is known by its descriptor, so a new name changes nothing. Where
    /// the question finds no answer (the device was moved to another network namespace), the last answer holds.
    /// </summary>
    /// <exception cref="IOException">The device was deleted, or never answered.</exception>
    public int QueryMtu()
    {
        var request = stackalloc byte[40]; // struct ifreq: name[16], then ifr_mtu
        new Span<byte>(request, 40).Clear();
        if (ioctl(Fd, Linux.TUNGETIFF, request) < 0)
        {
            throw Linux.Failure(Linux.Errno, $"TUNGETIFF '{Name}' (was the device deleted?)");
        }
        if (ioctl(_questions, Linux.SIOCGIFMTU, request) == 0)
        {
            _mtu = *(int*)(request + Linux.IFNAMSIZ);
        }
        else if (_mtu == 0)
        {
            throw Linux.Failure(Linux.Errno, $"SIOCGIFMTU '{Name}'");
        }
        return _mtu;
    }

    /// <summary>Reads one frame. Returns its bytes (with the virtio_net_hdr if there is one), or -errno (EAGAIN: none waits).</summary>
    public int Read(Span<byte> buffer)
    {
        fixed (byte* start = buffer)
        {
            var length = (int)read(Fd, start, buffer.Length);
            return length < 0 ? -Linux.Errno : length;
        }
    }

    /// <summary>Writes one plain IP packet. Returns 0, or -errno.</summary>
    public int Write(ReadOnlySpan<byte> packet)
    {
        fixed (byte* start = packet)
        {
            nint written;
            if (HasVnetHeader)
            {
                var vectors = (iovec*)_vectors.Pointer;
                vectors[1].iov_base = start;
                vectors[1].iov_len = packet.Length;
                written = Linux.writev(Fd, vectors, 2);
            }
            else
            {
                written = (nint)(long)write(Fd, start, packet.Length);
            }
            return written < 0 ? -Linux.Errno : 0;
        }
    }

    public int WriteGathered(ReadOnlySpan<IoVector> pieces)
    {
        fixed (IoVector* vectors = pieces)
        {
            return Linux.writev(Fd, (iovec*)vectors, pieces.Length) < 0 ? -Linux.Errno : 0;
        }
    }

    public void Dispose()
    {
        close(Fd);
        close(_questions);
        _vectors.Dispose();
    }
}
