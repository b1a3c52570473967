using System.Text;
using Lightway.Hosting;
using Lightway.Options;
using Lightway.Server.Host;

namespace Lightway.Server.Setup;

/// <summary>The command <c>lightway-server init DIR</c>: writes a set-up that works as it is.</summary>
public static class Init
{
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
    private const UnixFileMode SharedMost =
        OwnerOnly | UnixFileMode.SetGroup | UnixFileMode.GroupRead | UnixFileMode.GroupExecute;

    /// <summary>Writes the files and prints the next commands. A directory that holds anything is left alone.</summary>
    /// <returns>Exit code: 0, or 1 (a library is missing) or 2 after one line on <paramref name="error"/>.</returns>
    public static int Run(InitOptions options, TextWriter output, TextWriter error)
    {
        if (Platform.MissingLibrary() is { } missing)
        {
            error.WriteLine(missing);
            return Entry.Failed;
        }
        var directory = Path.TrimEndingDirectorySeparator(Path.GetFullPath(options.Directory));
        try
        {
            if (
                File.Exists(directory)
                || (Directory.Exists(directory) && Directory.EnumerateFileSystemEntries(directory).Any())
            )
            {
                error.WriteLine($"init: \"{directory}\" exists and is not an empty directory; nothing was written");
                return Entry.BadConfiguration;
            }
            var existing = ExistingCertificate.Of(options);
            var files = ForGroup(directory, SetUpFiles.All(options, directory, existing, DateTimeOffset.UtcNow));
            Write(directory, files);
            Tell(options, directory, files, output);
            return options.SetUpHost ? PrepareHost(directory, output, error) : 0;
        }
        catch (ConfigurationException problem)
        {
            error.WriteLine(problem.Message);
            return Entry.BadConfiguration;
        }
        catch (Exception problem) when (problem is IOException or UnauthorizedAccessException)
        {
            error.WriteLine($"init: cannot write \"{directory}\": {problem.Message}");
            return Entry.BadConfiguration;
        }
    }

    private static int PrepareHost(string directory, TextWriter output, TextWriter error)
    {
        var options = new HostOptions(
            HostAction.Apply,
            Path.Combine(directory, "server.yaml"),
            uplink: null,
            user: null,
            mtu: 0,
            nat: true,
            clientToClient: false,
            clientToHost: false
        );
        output.WriteLine();
        return SetUpHost.Run(options, output, error);
    }

    /// <summary>
    /// A directory with the set-group-ID bit gives its files its group (inode(7)). The package's /etc/lightway has it: what
    /// the server reads is then for the group of its user.
    /// </summary>
    private static IReadOnlyList<SetUpFile> ForGroup(string directory, IReadOnlyList<SetUpFile> files) =>
        Directory.Exists(directory) && File.GetUnixFileMode(directory).HasFlag(UnixFileMode.SetGroup)
            ? [.. files.Select(file => file.IsServers ? file with { Mode = file.Mode | UnixFileMode.GroupRead } : file)]
            : files;

    private static void Write(string directory, IReadOnlyList<SetUpFile> files)
    {
        Directory.CreateDirectory(directory, OwnerOnly);
        var existing = File.GetUnixFileMode(directory);
        File.SetUnixFileMode(directory, existing.HasFlag(UnixFileMode.SetGroup) ? existing & SharedMost : OwnerOnly);
        foreach (var file in files)
        {
            var options = new FileStreamOptions
            {
                Mode = FileMode.CreateNew,
                Access = FileAccess.Write,
                UnixCreateMode = file.Mode, // from the first byte on; the umask can only take bits away
            };
            using var stream = new FileStream(Path.Combine(directory, file.Name), options);
            stream.Write(Encoding.UTF8.GetBytes(file.Text));
            File.SetUnixFileMode(stream.SafeFileHandle, file.Mode);
        }
    }

    private static void Tell(InitOptions options, string directory, IReadOnlyList<SetUpFile> files, TextWriter output)
    {
        output.WriteLine($"Wrote to {directory}, for user {options.User} (the password is in client.yaml):");
        foreach (var file in files)
        {
            output.WriteLine($"  {FileChecks.Octal(file.Mode)} {file.Name}");
        }
        output.WriteLine();
        if (!options.IsAddressGiven)
        {
            output.WriteLine(
                $"Warning: client.yaml has {options.ServerHost}:{options.ServerPort}, which reaches the server from this machine only."
            );
            output.WriteLine("For other machines, change `server` in it, or start again with --address HOST:PORT.");
            output.WriteLine();
        }
        output.WriteLine("Next, on the server and on the client:");
        if (!options.SetUpHost)
        {
            output.WriteLine($"  lightway-server setup-host --apply --config-file {directory}/server.yaml");
        }
        output.WriteLine($"  lightway-server --config-file {directory}/server.yaml");
        output.WriteLine($"  lightway-client --config-file {directory}/client.yaml");
    }
}
