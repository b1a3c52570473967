using System.Text;
using Lightway.Tunnel.Kernel;
using static Tmds.Linux.LibC;

namespace Lightway.Tunnel.Tun;

/// <summary>Settings of a network interface by ioctl (netdevice(7)).</summary>
public static unsafe class TunInterface
{
    private const int RequestSize = 40; // struct ifreq
    private const int ValueAt = Linux.IFNAMSIZ; // the union after ifr_name

    /// <summary>A process has the TUN device: it is up, and somebody reads it. False if there is no such interface.</summary>
    public static bool IsInUse(string name)
    {
        var request = stackalloc byte[RequestSize];
        try
        {
            Control(Linux.SIOCGIFFLAGS, "SIOCGIFFLAGS", name, request);
        }
        catch (IOException)
        {
            return false;
        }
        return (*(short*)(request + ValueAt) & Linux.IFF_RUNNING) != 0;
    }

    /// <summary>Brings the interface up.</summary>
    public static void BringUp(string name)
    {
        var request = stackalloc byte[RequestSize];
        Control(Linux.SIOCGIFFLAGS, "SIOCGIFFLAGS", name, request);
        if ((*(short*)(request + ValueAt) & Linux.IFF_UP) == 0) // up already: no privilege is needed
        {
            *(short*)(request + ValueAt) |= Linux.IFF_UP;
            Control(
                Linux.SIOCSIFFLAGS,
                "SIOCSIFFLAGS",
                name,
                request,
                $"; the device is not up, and this process lacks CAP_NET_ADMIN; run as root: ip link set {name} up"
            );
        }
    }

    /// <param name="whenForbidden">Is added to the error if a privilege is missing: what to do.</param>
    private static void Control(
        int operation,
        string label,
        string name,
        byte* request,
        string whenForbidden = "; this process lacks CAP_NET_ADMIN"
    )
    {
        var ascii = Encoding.ASCII.GetBytes(name);
        ascii.AsSpan(0, Math.Min(ascii.Length, Linux.IFNAMSIZ - 1)).CopyTo(new Span<byte>(request, Linux.IFNAMSIZ));
        var fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
        {
            throw Linux.Failure(Linux.Errno, "socket");
        }
        var result = ioctl(fd, operation, request);
        var errno = Linux.Errno;
        close(fd);
        if (result < 0)
        {
            var failure = Linux.Failure(errno, $"{label} {name}");
            throw errno == Linux.EPERM ? new IOException(failure.Message + whenForbidden) : failure;
        }
    }
}
