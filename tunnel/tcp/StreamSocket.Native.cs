using System.ComponentModel;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Udp;
using Tmds.Linux;
using static Tmds.Linux.LibC;

namespace Lightway.Tunnel.Tcp;

/// <summary>One TCP connection: a non-blocking descriptor. One thread.</summary>
public sealed unsafe class StreamSocket : IDisposable
{
    /// <summary>What <see cref="Receive"/> and <see cref="Send"/> return when the socket is not ready.</summary>
    public const int WouldBlock = -Linux.EAGAIN;

    private const int SendBuffer = 1 << 20; // bytes; the kernel doubles it for its own needs
    private const int UnsentLimit = 128 * 1024; // bytes that wait in the kernel for the window: more would only be delay
    private const int PeerTimeoutMs = 60_000; // of silence, or of a closed window, while there is something to send
    private const int IdleSeconds = 120; // without any traffic, before the kernel asks whether the peer is still there
    private const int ProbeSeconds = 20;
    private const int Probes = 3;

    private int _connectError; // errno; connecting has failed at once

    private StreamSocket(int fd) => Fd = fd;

    public int Fd { get; private set; }

    /// <summary>Takes over a descriptor that <see cref="StreamListener.Accept"/> gave.</summary>
    internal static StreamSocket Adopt(int fd)
    {
        SetUp(fd);
        return new StreamSocket(fd);
    }

    /// <summary>Begins to connect; the descriptor is writable when that has succeeded or failed, see <see cref="TakeError"/>.</summary>
    /// <param name="mark">SO_MARK, or 0.</param>
    /// <exception cref="IOException">There is no descriptor, or the mark is not allowed.</exception>
    public static StreamSocket Connect(in PeerAddress to, uint mark)
    {
        var fd = socket(to.IsIPv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
        {
            throw Linux.Failure(Linux.Errno, "socket");
        }
        if (mark != 0 && !Set(fd, SOL_SOCKET, SO_MARK, (int)mark))
        {
            var errno = Linux.Errno;
            close(fd);
            throw Linux.Failure(errno, "setsockopt SO_MARK");
        }
        SetUp(fd);
        var name = stackalloc byte[SocketAddressBytes.Capacity];
        to.CopyTo(new Span<byte>(name, SocketAddressBytes.Capacity));
        var refusal = connect(fd, (sockaddr*)name, to.Length) < 0 ? Linux.Errno : 0;
        return new StreamSocket(fd) { _connectError = refusal == Linux.EINPROGRESS ? 0 : refusal };
    }

    /// <summary>The local address of the connection: what its peer has connected to.</summary>
    public LocalAddress Local
    {
        get
        {
            var name = stackalloc byte[SocketAddressBytes.Capacity];
            socklen_t length = SocketAddressBytes.Capacity;
            if (getsockname(Fd, (sockaddr*)name, &length) != 0)
            {
                return default;
            }
            var isIPv6 = *(ushort*)name == AF_INET6;
            return new LocalAddress(isIPv6 ? new(name + 8, 16) : new(name + 4, 4)); // sin6_addr, sin_addr
        }
    }

    /// <summary>Reads what has come. Returns bytes, 0 at the end of the stream, or -errno.</summary>
    public int Receive(Span<byte> buffer)
    {
        fixed (byte* bytes = buffer)
        {
            while (true)
            {
                var count = (int)recv(Fd, bytes, buffer.Length, Linux.MSG_DONTWAIT);
                if (count >= 0)
                {
                    return count;
                }
                if (Linux.Errno != Linux.EINTR)
                {
                    return -Linux.Errno;
                }
            }
        }
    }

    /// <summary>Sends as much as the socket takes. Returns bytes, or -errno.</summary>
    public int Send(ReadOnlySpan<byte> data)
    {
        fixed (byte* bytes = data)
        {
            while (true)
            {
                var count = (int)send(Fd, bytes, data.Length, Linux.MSG_DONTWAIT | Linux.MSG_NOSIGNAL);
                if (count >= 0)
                {
                    return count;
                }
                if (Linux.Errno != Linux.EINTR)
                {
                    return -Linux.Errno;
                }
            }
        }
    }

    /// <summary>The errno with which connecting has failed, 0 if it has succeeded.</summary>
    public int TakeError()
    {
        if (_connectError != 0)
        {
            return _connectError; // epoll reports such a socket as writable, too
        }
        var error = 0;
        socklen_t length = sizeof(int);
        return getsockopt(Fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 ? error : Linux.Errno;
    }

    /// <summary>An errno in words, for the log.</summary>
    public static string Describe(int errno) => $"{new Win32Exception(errno).Message} (errno {errno})";

    /// <summary>Closes the connection; what the kernel has taken is still sent.</summary>
    public void Dispose()
    {
        if (Fd >= 0)
        {
            close(Fd);
            Fd = -1;
        }
    }

    /// <summary>What fails here costs speed or memory only.</summary>
    private static void SetUp(int fd)
    {
        _ = Set(fd, IPPROTO_TCP, Linux.TCP_NODELAY, 1); // each write is whole records, nothing follows soon
        _ = Set(fd, SOL_SOCKET, SO_SNDBUFFORCE, SendBuffer) || Set(fd, SOL_SOCKET, SO_SNDBUF, SendBuffer);
        _ = Set(fd, IPPROTO_TCP, Linux.TCP_NOTSENT_LOWAT, UnsentLimit);
        _ = Set(fd, IPPROTO_TCP, Linux.TCP_USER_TIMEOUT, PeerTimeoutMs);
        _ = Set(fd, IPPROTO_TCP, Linux.TCP_KEEPIDLE, IdleSeconds);
        _ = Set(fd, IPPROTO_TCP, Linux.TCP_KEEPINTVL, ProbeSeconds);
        _ = Set(fd, IPPROTO_TCP, Linux.TCP_KEEPCNT, Probes);
        _ = Set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    }

    private static bool Set(int fd, int level, int option, int value) =>
        setsockopt(fd, level, option, &value, sizeof(int)) == 0;
}
