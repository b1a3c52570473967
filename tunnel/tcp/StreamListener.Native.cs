using System.Net;
using System.Net.Sockets;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Udp;
using Tmds.Linux;
using static Tmds.Linux.LibC;

namespace Lightway.Tunnel.Tcp;

/// <summary>Outcome of accepting a connection; the default value is a failure.</summary>
public enum AcceptOutcome
{
    /// <summary>That connection has ended already; others may wait.</summary>
    Failed = 0,
    Accepted,

    /// <summary>None waits.</summary>
    Empty,

    /// <summary>There is no descriptor or no memory for it; it goes on to wait.</summary>
    Exhausted,
}

/// <summary>A socket that waits for TCP connections, non-blocking. One thread.</summary>
public sealed unsafe class StreamListener : IDisposable
{
    private const int Backlog = 1024; // connections that wait to be accepted

    private StreamListener(int fd) => Fd = fd;

    public int Fd { get; }

    /// <summary>Address and port the socket is bound to.</summary>
    public required IPEndPoint LocalEndPoint { get; init; }

    /// <summary>Binds sockets that share one address: the kernel spreads the connections over them by their addresses.</summary>
    /// <param name="local">Address and port; port 0 picks one. [::] serves both families.</param>
    /// <exception cref="IOException">The address can't be bound.</exception>
    public static StreamListener[] BindGroup(IPEndPoint local, int count)
    {
        if (count > 1)
        {
            Bind(local, share: false).Dispose(); // another process of the same user would not be refused, but joined
        }
        var listeners = new List<StreamListener>();
        try
        {
            for (var i = 0; i < count; i++)
            {
                listeners.Add(Bind(i == 0 ? local : listeners[0].LocalEndPoint, share: count > 1));
            }
            return [.. listeners];
        }
        catch
        {
            listeners.ForEach(listener => listener.Dispose());
            throw;
        }
    }

    /// <summary>Takes the next connection that waits.</summary>
    /// <param name="socket">Null unless one was accepted.</param>
    /// <param name="peer">Who has connected.</param>
    public AcceptOutcome Accept(out StreamSocket? socket, out PeerAddress peer)
    {
        var name = stackalloc byte[SocketAddressBytes.Capacity];
        socklen_t length = SocketAddressBytes.Capacity;
        var fd = accept4(Fd, (sockaddr*)name, &length, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0)
        {
            socket = StreamSocket.Adopt(fd);
            peer = new PeerAddress(new ReadOnlySpan<byte>(name, SocketAddressBytes.Capacity));
            return AcceptOutcome.Accepted;
        }
        socket = null;
        peer = default;
        return Linux.Errno switch
        {
            Linux.EAGAIN => AcceptOutcome.Empty,
            Linux.EMFILE or Linux.ENFILE or Linux.ENOBUFS or Linux.ENOMEM => AcceptOutcome.Exhausted,
            _ => AcceptOutcome.Failed,
        };
    }

    public void Dispose() => close(Fd);

    private static StreamListener Bind(IPEndPoint local, bool share)
    {
        var v6 = local.AddressFamily == AddressFamily.InterNetworkV6;
        var fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
        {
            throw Linux.Failure(Linux.Errno, "socket");
        }
        try
        {
            Require(fd, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR"); // connections of an earlier run may linger
            if (v6)
            {
                Require(fd, IPPROTO_IPV6, Linux.IPV6_V6ONLY, 0, "IPV6_V6ONLY");
            }
            if (share)
            {
                Require(fd, SOL_SOCKET, Linux.SO_REUSEPORT, 1, "SO_REUSEPORT");
            }
            var name = stackalloc byte[SocketAddressBytes.Capacity];
            var address = new PeerAddress(local);
            address.CopyTo(new Span<byte>(name, SocketAddressBytes.Capacity));
            if (bind(fd, (sockaddr*)name, address.Length) < 0 || listen(fd, Backlog) < 0)
            {
                var errno = Linux.Errno;
                var holder = errno == Linux.EADDRINUSE ? PortHolder.Find("tcp", local.Port) : null;
                throw Linux.Failure(errno, $"bind TCP {local}{(holder is null ? "" : $" ({holder} has the port)")}");
            }
            socklen_t length = SocketAddressBytes.Capacity;
            if (getsockname(fd, (sockaddr*)name, &length) < 0)
            {
                throw Linux.Failure(Linux.Errno, "getsockname");
            }
            return new StreamListener(fd)
            {
                LocalEndPoint = new PeerAddress(new ReadOnlySpan<byte>(name, SocketAddressBytes.Capacity)).ToEndPoint(),
            };
        }
        catch
        {
            close(fd);
            throw;
        }
    }

    private static void Require(int fd, int level, int option, int value, string label)
    {
        if (setsockopt(fd, level, option, &value, sizeof(int)) != 0)
        {
            throw Linux.Failure(Linux.Errno, $"setsockopt {label}");
        }
    }
}
