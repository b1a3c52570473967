using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;

namespace Lightway.Server.Auth;

/// <summary>
/// Asks a program whether a user may log in: it gets the user and the password on its standard input, a line each, and says
/// so by its exit code. No shell is involved. Safe from any thread; a check holds its thread until the program has ended.
/// </summary>
/// <param name="command">Absolute path of the program, and its arguments.</param>
/// <param name="timeout">After it the program and its children are killed.</param>
public sealed class AuthCommand(IReadOnlyList<string> command, TimeSpan timeout)
{
    private const int Allowed = 0; // exit codes
    private const int Refused = 1;
    private const int MaxOutput = 64 * 1024; // bytes that are read of what it prints, and thrown away
    private const byte LineFeed = (byte)'\n';
    private static readonly TimeSpan Dying = TimeSpan.FromSeconds(1);

    /// <param name="password">UTF-8.</param>
    public LoginAnswer Check(string user, ReadOnlySpan<byte> password)
    {
        if (user.Contains('\n') || password.Contains(LineFeed))
        {
            return new(AuthVerdict.Refused, "a line feed in user or password", LoginMeans.Unsendable);
        }
        try
        {
            using var process = Process.Start(StartInfo())!;
            return Check(process, user, password);
        }
        catch (Exception error) when (error is Win32Exception or IOException or InvalidOperationException)
        {
            return Failed($"can't be started: {error.Message}");
        }
    }

    private LoginAnswer Check(Process process, string user, ReadOnlySpan<byte> password)
    {
        using var ended = new CancellationTokenSource();
        var printed = new Printed();
        _ = Discard(process.StandardOutput.BaseStream, printed, ended.Token);
        _ = Discard(process.StandardError.BaseStream, printed, ended.Token);
        Write(process, user, password);
        var isInTime = process.WaitForExit(timeout);
        if (!isInTime)
        {
            Kill(process);
        }
        ended.Cancel(); // a child that it leaves behind may have its output still open
        if (!isInTime)
        {
            return Failed(
                string.Create(
                    CultureInfo.InvariantCulture,
                    $"did not answer within {timeout.TotalSeconds:0.###} s, and was killed"
                )
            );
        }
        if (printed.IsTooMuch)
        {
            return Failed($"printed more than {MaxOutput} bytes; what it prints is thrown away");
        }
        return process.ExitCode switch
        {
            Allowed => new(AuthVerdict.Allowed, null, LoginMeans.Command),
            Refused => new(AuthVerdict.Refused, null, LoginMeans.Command),
            var other => Failed($"ended with {other}"),
        };
    }

    private ProcessStartInfo StartInfo()
    {
        var start = new ProcessStartInfo(command[0], command.Skip(1))
        {
            UseShellExecute = false,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = "/",
        };
        var path = Environment.GetEnvironmentVariable("PATH");
        start.Environment.Clear();
        start.Environment["PATH"] = path ?? "/usr/bin:/bin";
        return start;
    }

    /// <summary>Both lines fit into the pipe: nobody has to read them. A program that has ended already says so by its exit code.</summary>
    private static void Write(Process process, string user, ReadOnlySpan<byte> password)
    {
        var name = Encoding.UTF8.GetBytes(user);
        var lines = GC.AllocateUninitializedArray<byte>(name.Length + password.Length + 2, pinned: true);
        name.CopyTo(lines, 0);
        lines[name.Length] = LineFeed;
        password.CopyTo(lines.AsSpan(name.Length + 1));
        lines[^1] = LineFeed;
        try
        {
            using var input = process.StandardInput.BaseStream;
            input.Write(lines);
        }
        catch (IOException)
        {
            // EPIPE: it has not read them.
        }
        finally
        {
            CryptographicOperations.ZeroMemory(lines);
        }
    }

    /// <summary>
    /// Reads what the program prints, so that it is not held up. Whoever prints too much gets EPIPE, after
    /// <see cref="Printed.IsTooMuch"/> was set: the exit code that may follow has no weight.
    /// </summary>
    private static async Task Discard(Stream output, Printed printed, CancellationToken ended)
    {
        await using var owned = output.ConfigureAwait(false);
        var buffer = new byte[4096];
        try
        {
            for (var left = MaxOutput; left >= 0; )
            {
                var count = await output.ReadAsync(buffer, ended).ConfigureAwait(false);
                if (count == 0)
                {
                    return;
                }
                left -= count;
            }
            printed.IsTooMuch = true;
        }
        catch (Exception error) when (error is IOException or OperationCanceledException)
        {
            // The program is gone.
        }
    }

    private static void Kill(Process process)
    {
        try
        {
            process.Kill(entireProcessTree: true);
            process.WaitForExit(Dying);
        }
        catch (Exception error) when (error is Win32Exception or InvalidOperationException or AggregateException)
        {
            // It has ended by itself, or a child of it may not be killed: what it still does has no effect.
        }
    }

    private static LoginAnswer Failed(string why) => new(AuthVerdict.Failed, $"auth_command {why}", LoginMeans.Command);

    private sealed class Printed
    {
        public volatile bool IsTooMuch;
    }
}
