# SPDX-License-Identifier: BSD-3-Clause
"""The directive `shown`: Python that is run while the site is built, with what it prints, displays and draws below
it."""

import ast
import contextlib
import io
import shutil
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive


class Shown(Directive):
    """Code, then its text, then the last expression as a notebook displays it (of a report's path the report), then its
    figures. Names live on from one to the next of a page."""

    has_content = True

    def run(self):
        import matplotlib.pyplot as plt

        env = self.state.document.settings.env
        names = env.temp_data.setdefault("shown", {})
        tree = ast.parse("\n".join(self.content))
        last = tree.body[-1]
        value = None
        with contextlib.redirect_stdout(io.StringIO()) as out:
            if isinstance(last, ast.Expr):
                exec(compile(ast.Module(tree.body[:-1], []), env.docname, "exec"), names)
                value = eval(compile(ast.Expression(last.value), env.docname, "eval"), names)
            else:
                exec(compile(tree, env.docname, "exec"), names)
        made = [nodes.literal_block("\n".join(self.content), "\n".join(self.content), language="python")]
        if out.getvalue():
            made.append(nodes.literal_block(out.getvalue(), out.getvalue(), language="none"))
        if hasattr(value, "_repr_html_"):
            made.append(nodes.raw("", f'<div class="notebook">{value._repr_html_()}</div>', format="html"))
        if isinstance(value, Path):
            made.append(self._report(env, value))
        return made + [self._image(env, number, plt) for number in plt.get_fignums()]

    def _report(self, env, path):
        """A frame with a report, whose file is moved beside the page's."""
        folder = Path(env.app.outdir) / "_shown"
        folder.mkdir(parents=True, exist_ok=True)
        name, _ = self._name(env)
        shutil.move(path, folder / f"{name}.html")
        where = f"{'../' * env.docname.count('/')}_shown/{name}.html"
        frame = f'<iframe class="report" src="{where}" title="The report written here" loading="lazy"></iframe>'
        return nodes.raw("", f'{frame}<p><a href="{where}">The report alone</a></p>', format="html")

    def _name(self, env):
        """Of the next thing that a page shows, and its number."""
        count = env.temp_data["shown_things"] = env.temp_data.get("shown_things", 0) + 1
        return f"{env.docname.replace('/', '-')}-{count}", count

    def _image(self, env, number, plt):
        """A figure in docs/_shown, closed."""
        stem, count = self._name(env)
        name = f"{stem}.png"
        folder = Path(env.srcdir) / "_shown"
        folder.mkdir(exist_ok=True)
        figure = plt.figure(number)
        figure.savefig(folder / name, dpi=150)
        plt.close(figure)
        return nodes.image(uri=f"/_shown/{name}", alt=f"The figure that this code draws ({count})", width="100%")


def setup(app):
    app.add_directive("shown", Shown)
    return {"parallel_read_safe": False}
