using System.Runtime.Versioning;

// TUN devices and Unix file modes: nothing here runs elsewhere, and the analyzer need not ask at each call.
[assembly: SupportedOSPlatform("linux")]
