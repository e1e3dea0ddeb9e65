# SPDX-License-Identifier: BSD-3-Clause
"""The directive `shown`: Python that is run while the site is built, with what it prints, displays and draws below
it."""

import ast
import contextlib
import io
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive


class Shown(Directive):
    """Code, then its text, then the last expression as a notebook displays it, then its figures. Names live on from
    one to the next of a page."""

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
        return made + [self._image(env, number, plt) for number in plt.get_fignums()]

    def _image(self, env, number, plt):
        """A figure in docs/_shown, closed."""
        count = env.temp_data["shown_figures"] = env.temp_data.get("shown_figures", 0) + 1
        name = f"{env.docname.replace('/', '-')}-{count}.png"
        folder = Path(env.srcdir) / "_shown"
        folder.mkdir(exist_ok=True)
        figure = plt.figure(number)
        figure.savefig(folder / name, dpi=150)
        plt.close(figure)
        return nodes.image(uri=f"/_shown/{name}", alt=f"The figure that this code draws ({count})", width="100%")


def setup(app):
    app.add_directive("shown", Shown)
    return {"parallel_read_safe": False}
