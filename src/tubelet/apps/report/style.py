"""How the page of `tubelet report` looks, by day and by night."""

STYLE = """
:root{color-scheme:light dark;--ink:#1c1e21;--soft:#6a7078;--line:#d9dce1;--page:#fff;--raised:#f6f7f9;--alarm:#c8102e}
@media(prefers-color-scheme:dark){:root{--ink:#e8e9eb;--soft:#9aa1ab;--line:#383c43;--page:#16181b;--raised:#1f2226;
--alarm:#ff6b6b}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:24px 20px 80px;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:28px;margin:0}header p,.note,small{color:var(--soft)}h2{font-size:20px;margin:44px 0 12px;
border-bottom:1px solid var(--line);padding-bottom:6px}h3{font-size:16px;margin:26px 0 8px}h4{font-size:13px;
font-weight:600;color:var(--soft);margin:14px 0 6px}.note{font-size:13px;margin:6px 0}
table{border-collapse:collapse}th,td{padding:5px 12px 5px 0;text-align:left;vertical-align:top;
border-bottom:1px solid var(--line)}th{font-weight:600;font-size:13px}td{font-variant-numeric:tabular-nums}
.numbers th:not(:first-child),.numbers td:not(:first-child){text-align:right;padding:5px 0 5px 16px}
.failures{width:100%}.failures td:nth-child(1){width:42%}.failures td:nth-child(5){width:30%}
.wide{overflow-x:auto;margin:8px 0}
.bars{width:100%}.bars th{width:160px;font-weight:400}.bars td{padding-right:0}
.bar{display:flex;align-items:center;gap:8px;min-height:15px}.bar i{display:block;height:11px;border-radius:2px;
min-width:1px}.bar span{font-size:12px;color:var(--soft);white-space:nowrap}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(340px,1fr));gap:20px}
figure{margin:0}figcaption{font-size:13px;font-weight:600}.chart{width:100%;height:auto}
svg text{font-size:11px;fill:var(--soft)}.rule{stroke:var(--line)}.nobody{fill:none;stroke:var(--alarm);
stroke-width:1;stroke-dasharray:2 2}.mark{fill:var(--alarm)}
.legend{margin:2px 0 8px;font-size:13px}.legend span{margin-right:16px}.legend i{display:inline-block;width:10px;
height:10px;border-radius:2px;margin-right:6px}
.strip{display:grid;grid-template-columns:repeat(6,1fr);gap:6px}.strip img{width:100%;display:block;border-radius:3px;
border:2px solid transparent}.strip .failing img{border-color:var(--alarm)}.strip figcaption{font-size:11px;
font-weight:400;color:var(--soft);line-height:1.3}.failing figcaption{color:var(--alarm)}
@media(max-width:760px){.strip{grid-template-columns:repeat(3,1fr)}}
article{background:var(--raised);border:1px solid var(--line);border-radius:8px;padding:2px 16px 14px;margin:16px 0}
details{margin:6px 0}summary{cursor:pointer;font-size:13px;color:var(--soft)}
"""
