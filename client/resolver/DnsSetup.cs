using System.Net;
using Lightway.Client.Network;
using Lightway.Client.Programs;
using Lightway.Options;
using Microsoft.Extensions.Logging;
using LogLevel = Microsoft.Extensions.Logging.LogLevel;

namespace Lightway.Client.Resolver;

/// <summary>Makes this machine ask a server inside the tunnel for names; <see cref="Dispose"/> puts all back.</summary>
internal sealed partial class DnsSetup : IDisposable
{
    private const string Entry = "tun.lightway-client"; // for resolvconf(8); Debian's sorts tun* first
    private static readonly string[] _entryFolders = ["interfaces", "interface", "keys"];
    private readonly string _device;
    private readonly IPAddress _dns;
    private readonly ILogger _log;
    private readonly Stack<Action> _undo = new();

    /// <summary>Takes the ways that suit this machine.</summary>
    /// <param name="device">Name of the TUN device, which is up.</param>
    /// <exception cref="IOException">None can be taken.</exception>
    public DnsSetup(string device, IPAddress dns, ILogger log)
    {
        _device = device;
        _dns = dns;
        _log = log;
        var methods = DnsPlan.methods(Facts());
        try
        {
            foreach (var method in methods)
            {
                Apply(method, isOnlyOne: methods.Count == 1);
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        while (_undo.TryPop(out var undo))
        {
            try
            {
                undo();
            }
            catch (IOException error)
            {
                LogFailure(_log, error.Message);
            }
        }
    }

    /// <summary>Puts back what a killed client has changed. Returns what that was.</summary>
    /// <exception cref="IOException">It can't be put back.</exception>
    public static IReadOnlyList<string> RestoreLeftovers()
    {
        var restored = new List<string>();
        if (ResolvConf.RestoreLeftover())
        {
            restored.Add(ResolvConf.FilePath);
        }
        // systemd-resolved forgets a link with its device, and does not ask one that is down.
        if (
            HasEntry()
            && TunDevice.OfLivingClient() is null
            && Resolvconf(out var path) is var kind and not (ResolvconfKind.None or ResolvconfKind.Systemd)
        )
        {
            Remove(kind, path!);
            restored.Add($"the entry {Entry} of resolvconf");
        }
        return restored;
    }

    private void Apply(DnsMethod method, bool isOnlyOne)
    {
        switch (method)
        {
            case DnsMethod.Resolved:
                try
                {
                    UseResolved();
                }
                catch (IOException error) when (!isOnlyOne)
                {
                    LogFailure(_log, error.Message); // nobody answers there, so nobody is asked there
                    return;
                }
                break;
            case DnsMethod.File:
                _undo.Push(new ResolvConf(_dns, _log).Dispose);
                break;
            default:
                UseResolvconf();
                break;
        }
        LogSet(_log, _dns, Describe(method));
    }

    private static DnsFacts Facts()
    {
        var hasResolved = Directory.Exists("/run/systemd/resolve") && Tool.Find("resolvectl") is not null;
        return new DnsFacts(
            Target(),
            ResolvConf.Text,
            hasResolved,
            hasResolved && DnsPlan.asksResolved(TextOf("/etc/nsswitch.conf")),
            Resolvconf(out _)
        );
    }

    private static string Target()
    {
        try
        {
            return File.ResolveLinkTarget(ResolvConf.FilePath, returnFinalTarget: true)?.FullName
                ?? ResolvConf.FilePath;
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return ResolvConf.FilePath;
        }
    }

    private static string TextOf(string path)
    {
        try
        {
            return File.ReadAllText(path);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }

    private void UseResolved()
    {
        var resolvectl = Tool.Find("resolvectl")!;
        _undo.Push(() => Tool.Run(resolvectl, ["revert", _device]));
        Require(resolvectl, ["dns", _device, $"{_dns}"]);
        Require(resolvectl, ["domain", _device, "~."]);
        // Since systemd 240; without it, the domain decides.
        _ = Tool.Run(resolvectl, ["default-route", _device, "true"]);
        _ = Tool.Run(resolvectl, ["flush-caches"]);
    }

    private static ResolvconfKind Resolvconf(out string? path)
    {
        path = Tool.Find("resolvconf");
        if (path is null)
        {
            return ResolvconfKind.None;
        }
        var target = File.ResolveLinkTarget(path, returnFinalTarget: true)?.FullName ?? path;
        var kind = DnsPlan.resolvconfKind(target, "");
        return kind == ResolvconfKind.Systemd
            ? kind
            : DnsPlan.resolvconfKind(
                target,
                Tool.Run(path, ["--version"]) is var result ? result.Output + result.Errors : ""
            );
    }

    private void UseResolvconf()
    {
        var kind = Resolvconf(out var path);
        string[] arguments = kind == ResolvconfKind.OpenResolv ? ["-a", Entry, "-m", "0", "-x"] : ["-a", Entry];
        _undo.Push(() => Remove(kind, path!));
        Require(path!, arguments, DnsPlan.entry(_dns));
        if (kind == ResolvconfKind.Debian)
        {
            LogOthersFollow(_log);
        }
    }

    /// <summary>Where both kinds, old versions and new ones, keep what they were given.</summary>
    private static bool HasEntry() =>
        _entryFolders.Any(folder =>
            File.Exists($"/run/resolvconf/{folder}/{Entry}") || File.Exists($"/etc/resolvconf/run/{folder}/{Entry}")
        );

    private static void Remove(ResolvconfKind kind, string path) =>
        Require(path, kind == ResolvconfKind.OpenResolv ? ["-f", "-d", Entry] : ["-d", Entry]);

    private static void Require(string path, string[] arguments, string input = "")
    {
        var result = Tool.Run(path, arguments, input);
        if (result.Code != 0)
        {
            throw new IOException(
                $"dns_config_mode: {path} {string.Join(' ', arguments)} ends with code {result.Code}: {result.Errors}; "
                    + "or set dns_config_mode: noexec, and names are not asked for through the tunnel"
            );
        }
    }

    private static string Describe(DnsMethod method) =>
        method switch
        {
            DnsMethod.Resolved => "systemd-resolved",
            DnsMethod.File => ResolvConf.FilePath,
            _ => "resolvconf",
        };

    [LoggerMessage(Level = LogLevel.Information, Message = "names are asked for at {Dns} ({Method})")]
    private static partial void LogSet(ILogger log, IPAddress dns, string method);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "resolvconf keeps the other name servers, after the tunnel's: programs may ask them when it does not answer; openresolv can leave them out"
    )]
    private static partial void LogOthersFollow(ILogger log);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Why}")]
    private static partial void LogFailure(ILogger log, string why);
}
