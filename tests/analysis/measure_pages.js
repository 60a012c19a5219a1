// Measures the pages in the frames of this page; see test_report_in_browser.py. The frames are not sandboxed, so that this
// script can look into pages that run no script of their own.
const ON_PAPER = {print: 'all', screen: 'not all'};  // media of the rules of the page's style
const NUMBER = /[-+]?\d[\d,]*(?:\.\d+)?/g;
function texts(cell) {  // [node, text] of the texts in a cell
  const walker = cell.ownerDocument.createTreeWalker(cell, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) found.push(walker.currentNode);
  return found;
}
function range(first, start, last, end) {  // the boxes of a piece of text
  const one = first.ownerDocument.createRange();
  one.setStart(first, start); one.setEnd(last, end);
  return [...one.getClientRects()].filter(box => box.width > 0);
}
function isBroken(cell) {  // whether a number of the cell is on two lines, or its star on another line than the number
  const nodes = texts(cell), lines = boxes => new Set(boxes.map(box => Math.round(box.bottom))).size;
  if (nodes.some(node => [...node.data.matchAll(NUMBER)].some(
    found => lines(range(node, found.index, node, found.index + found[0].length)) > 1))) return true;
  const last = nodes[nodes.length - 1];
  if (!last || !/^[\d.,]*\s*[*]\s*$/.test(last.data)) return false;
  const before = last.data.trim() === '*' ? nodes[nodes.length - 2] : last;
  const star = last.data.indexOf('*');
  return lines([...range(before, 0, before, 1), ...range(last, star, last, star + 1)]) > 1;
}
function endsOfWholes(table) {  // by column: where the whole parts of its first numbers end
  const columns = {};
  for (const cell of table.querySelectorAll('tbody td.number')) {
    const nodes = texts(cell), at = nodes.findIndex(node => /\d/.test(node.data));
    if (at < 0) continue;
    const whole = /\d[\d,]*/.exec(nodes[at].data);
    const boxes = range(nodes[at], whole.index, nodes[at], whole.index + whole[0].length);
    (columns[cell.cellIndex] ||= []).push(boxes[0].right - table.getBoundingClientRect().left);
  }
  return Object.values(columns).map(ends => Math.max(...ends) - Math.min(...ends));
}
function measure(inner) {
  const root = inner.documentElement, style = inner.defaultView.getComputedStyle.bind(inner.defaultView);
  const tables = [...inner.querySelectorAll('table')].map(table => {
    const box = table.parentElement, cells = [...table.querySelectorAll('td')];
    const found = {
      title: table.innerText.slice(0, 60), width: table.offsetWidth, room: box.clientWidth,
      left: box.getBoundingClientRect().left, right: box.getBoundingClientRect().right,
      broken: cells.filter(isBroken).map(cell => cell.innerText), ragged: endsOfWholes(table),
      font: Math.min(...cells.map(cell => parseFloat(style(cell).fontSize))),
      rowBreaks: style(table.rows[1]).breakInside, head: style(table.tHead).display,
    };
    box.scrollLeft = 1e6;
    const edges = box.getBoundingClientRect(), row = table.rows[1].cells;
    found.last = row[row.length - 1].getBoundingClientRect().right - edges.right;
    found.first = row[0].getBoundingClientRect().left - edges.left;
    const labels = [...row].filter(cell => style(cell).position === 'sticky');
    found.labels = Math.max(0, ...labels.map(cell => cell.getBoundingClientRect().right - edges.left));
    return found;
  });
  const boxes = [...inner.querySelectorAll('img, pre, blockquote, h1, h2, h3')].map(node => {
    const box = node.getBoundingClientRect();
    return {tag: node.tagName, left: box.left, right: box.right, inside: node.scrollWidth - node.clientWidth};
  });
  return {width: root.clientWidth, content: root.scrollWidth, tables, boxes};
}
onload = () => {
  const found = {};
  for (const frame of document.querySelectorAll('iframe')) {
    const inner = frame.contentDocument;
    if (frame.name === 'paper') for (const sheet of inner.styleSheets) for (const rule of sheet.cssRules)
      if (rule.media) for (const [medium, paper] of Object.entries(ON_PAPER))
        if (rule.media.mediaText.includes(medium)) rule.media.mediaText = paper;
    found[frame.name] = measure(inner);
  }
  document.body.innerHTML = '<pre></pre>';
  document.body.firstChild.textContent = JSON.stringify(found);
};
